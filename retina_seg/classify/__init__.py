"""The classification side-path: networks by name in `models`, how good they are in `measures`."""
