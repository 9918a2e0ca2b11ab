"""lssl_ray adapts an image CLIP to video with no per-video labels.

Importing this package does nothing and imports nothing heavy: decode children start from it.
"""

__version__ = "0.1.0"
