"""Downloads that were just made, kept until the browser has had time to ask for them.

What a download holds is in downloads.
"""

import threading
import time

from streamlit.runtime.media_file_storage import MediaFileKind
from streamlit.runtime.memory_media_file_storage import MemoryMediaFileStorage

SECONDS = 120.0
"""How long a download is kept after it was made; the browser asks at once, a busy computer hears it later."""


class PatientStorage(MemoryMediaFileStorage):
    """Streamlit's memory for media files, but a download is not deleted within SECONDS of being made.

    Streamlit counts a download that is made on demand as nobody's, and deletes what is nobody's as soon as any two
    pages have run, of whatever visitor: under load that is before the browser could ask for it.
    """

    def __init__(self, media_endpoint: str) -> None:
        super().__init__(media_endpoint)
        self._made: dict[str, float] = {}  # file -> when it was last stored

    def load_and_get_id(
        self, path_or_data: str | bytes, mimetype: str, kind: MediaFileKind, filename: str | None = None
    ) -> str:
        """Store a file, as Streamlit's."""
        file_id = super().load_and_get_id(path_or_data, mimetype, kind, filename)
        if kind == MediaFileKind.DOWNLOADABLE:
            self._made[file_id] = time.monotonic()
        return file_id

    def delete_file(self, file_id: str) -> None:
        """Delete a file, a download in its time."""
        made = self._made.get(file_id)
        left = 0.0 if made is None else made + SECONDS - time.monotonic()
        if left > 0:
            later = threading.Timer(left, self._delete, (file_id, made))
            later.daemon = True
            later.start()
        else:
            self._delete(file_id, made)

    def _delete(self, file_id: str, made: float | None) -> None:
        if self._made.get(file_id) == made:  # else it was made again, and will be deleted again
            self._made.pop(file_id, None)
            super().delete_file(file_id)
