import pytest
from streamlit.runtime.media_file_manager import MediaFileManager
from streamlit.runtime.media_file_storage import MediaFileKind, MediaFileStorageError
from streamlit.runtime.memory_media_file_storage import MemoryMediaFileStorage

from retina_seg.viewer import made
from retina_seg.viewer.made import PatientStorage


class Clock:
    """Time that a test moves, with what is due to happen."""

    def __init__(self):
        self.now, self.due = 0.0, []

    def monotonic(self):
        return self.now

    def Timer(self, seconds, do, arguments):
        self.due.append((self.now + seconds, do, arguments))
        return self

    def start(self):
        pass

    def wait(self, seconds):
        self.now += seconds
        for one in [one for one in self.due if one[0] <= self.now]:
            self.due.remove(one)
            one[1](*one[2])


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(made, "time", clock)
    monkeypatch.setattr(made, "threading", clock)
    return clock


def download(storage):
    """Make a download as a press of its button does, and let two pages of other visitors end; its address."""
    manager = MediaFileManager(storage)
    button = manager.add_deferred(lambda: b"mask", "image/png", "button", "eye_mask.png")
    address = manager.execute_deferred(button)
    for _ in range(2):
        manager.remove_orphaned_files()
    return address.rpartition("/")[2]


def test_streamlit_itself_loses_a_download():
    """The fault that this mends: once it is gone, so may the module be."""
    storage = MemoryMediaFileStorage("/media")
    with pytest.raises(MediaFileStorageError):
        storage.get_file(download(storage))


def test_a_download_outlives_the_pages_of_others(clock):
    storage = PatientStorage("/media")
    name = download(storage)
    clock.wait(made.SECONDS - 1)
    assert storage.get_file(name).content == b"mask"
    clock.wait(1)
    with pytest.raises(MediaFileStorageError):
        storage.get_file(name)


def test_a_download_made_again_lives_on(clock):
    storage = PatientStorage("/media")
    download(storage)
    clock.wait(made.SECONDS - 1)
    name = download(storage)
    clock.wait(made.SECONDS - 1)
    assert storage.get_file(name).content == b"mask"
    clock.wait(1)
    assert clock.due == []
    with pytest.raises(MediaFileStorageError):
        storage.get_file(name)


def test_pictures_of_a_page_are_deleted_at_once(clock):
    storage = PatientStorage("/media")
    shown = storage.load_and_get_id(b"figure", "image/png", MediaFileKind.MEDIA)
    storage.delete_file(shown)
    with pytest.raises(MediaFileStorageError):
        storage.get_file(shown)
    assert clock.due == []
    storage.delete_file("none")
