"""The small world that `make demo` trains on: rendered clips and a tiny CLIP that half knows them.

Deliberately import-free, so that naming the package costs nothing. It is a demonstration and a
test bed: no module of the library proper may import it.
"""
