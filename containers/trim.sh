#!/bin/sh
# Takes out of a virtual environment what no container here ever reads, then compiles the rest.
#
# Bytecode is kept on purpose: the root file system is read-only, so a module without it is compiled again at every
# start, which costs a step more than its work. "unchecked-hash" makes the files independent of timestamps.
set -eu
venv=$1
site=$(echo "$venv"/lib/python3*/site-packages)

"$venv/bin/pip" uninstall --quiet --yes setuptools pip
rm -rf "$site"/_distutils_hack "$site"/distutils-precedence.pth "$site"/pkg_resources

find "$site" -type d \( -name tests -o -name test -o -name __pycache__ \) -prune -exec rm -rf {} +
find "$site" -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.pyi' -o -name '*.c' -o -name '*.cpp' -o -name '*.h' \
    -o -name '*.hpp' -o -name '*.a' -o -name '*.proto' \) -delete
rm -rf "$site"/pyarrow/include "$site"/pyarrow/src "$site"/numpy/_core/include "$site"/onnx/backend/test \
    "$site"/onnxruntime/tools "$site"/onnxruntime/transformers "$site"/onnxruntime/quantization "$site"/sklearn/datasets/images
# Nothing here speaks Arrow Flight; ONNX Runtime's Python module holds the library a second time in itself.
rm -f "$site"/pyarrow/_flight* "$site"/pyarrow/libarrow_flight* "$site"/pyarrow/libarrow_python_flight* \
    "$site"/onnxruntime/capi/libonnxruntime.so*

# The Kubernetes client is 80 MB of generated code, most of it docstrings: only its bytecode stays, without them.
for generated in "$site"/kubernetes/client "$site"/kubernetes/aio/client; do
    [ -d "$generated" ] || continue
    "$venv/bin/python" -m compileall -q -b -o 2 --invalidation-mode unchecked-hash "$generated"
    find "$generated" -name '*.py' -delete
done

"$venv/bin/python" -m compileall -q --invalidation-mode unchecked-hash "$site" || true
