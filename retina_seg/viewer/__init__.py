"""What app.py needs and is not a widget: photographs at hand, results, tiles for the browser, numbers, downloads.

No page and no widget but the pictures themselves (canvas, pointer); no network runs here but through Segmenter.
"""
