// A picture of which one pixel is chosen: by a click, or with the arrow keys. Python is told it as state "pixel":
// {picture, x, y}, and gives the picture, its size in pixels and the pixel that is marked.

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const LARGE = 10; // pixels a step with Shift

export default function ({ parentElement, data, setStateValue }) {
  const root = parentElement.querySelector(".pointer");
  const image = root.querySelector("img");
  const mark = root.querySelector(".mark");
  const { picture, jpeg, width, height } = data;
  let { x, y } = data;
  if (root.dataset.picture !== picture) {
    image.src = `data:image/jpeg;base64,${jpeg}`;
    root.dataset.picture = picture;
  }
  const inside = (value, count) => Math.min(Math.max(Math.floor(value), 0), count - 1);

  function show() {
    mark.hidden = false;
    mark.style.left = `${(100 * (x + 0.5)) / width}%`;
    mark.style.top = `${(100 * (y + 0.5)) / height}%`;
  }

  function choose(newX, newY) {
    [x, y] = [inside(newX, width), inside(newY, height)];
    show();
    setStateValue("pixel", { picture, x, y });
  }

  root.onclick = (event) => {
    const box = image.getBoundingClientRect();
    choose(((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height);
  };
  root.onkeydown = (event) => {
    const step = STEPS[event.key];
    if (!step) return;
    event.preventDefault();
    const by = event.shiftKey ? LARGE : 1;
    choose(x + by * step[0], y + by * step[1]);
  };
  show();
}
