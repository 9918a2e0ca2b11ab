"""First on a decode child's path, this lets real readers crash or hang on files with such names.

`slow*` takes its time for as long as there is a file `slow` beside it.

Files that make a decoder of today do so would not do it to tomorrow's. Python imports a module of
this name in every process that it starts; only decode children are touched.
"""

import ctypes
import os
import sys
import time

if "lssl_ray.video.decode_child" in sys.orig_argv:
    from lssl_ray.video import files

    check_file = files.check_file

    def misbehave(path: str) -> None:
        name = os.path.basename(path)
        if name.startswith("segfault"):
            ctypes.string_at(0)
        elif name.startswith("hang"):  # PyDLL keeps the GIL, as a decoder's endless loop does
            ctypes.PyDLL(None).pause()
        elif name.startswith("slow") and os.path.exists(f"{os.path.dirname(path)}/slow"):
            time.sleep(0.5)
        check_file(path)

    files.check_file = misbehave
