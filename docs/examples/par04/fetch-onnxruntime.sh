#!/usr/bin/env bash
# Puts headers and library of ONNX Runtime where CMake finds them, here and for Par04 itself:
#
#   docs/examples/par04/fetch-onnxruntime.sh [FOLDER]        (build/onnxruntime)
#
# The library is that of the Python package, which has no headers; those of the same interface come from an npm package.
# PYTHON names the interpreter that has onnxruntime.
set -euo pipefail

folder=${1:-build/onnxruntime}
python=${PYTHON:-python3}
package=com.github.asus4.onnxruntime
version=0.4.9
sha256=e59788788818fdde1b2e522e766a21ba0f7d8391de55737abf81e32cc801785d

command -v npm > /dev/null || { echo "fetch-onnxruntime: npm is not installed" >&2; exit 2; }
library=$("$python" - << 'PY'
import importlib.util
from pathlib import Path

found = importlib.util.find_spec("onnxruntime")
libraries = sorted(Path(found.origin).parent.glob("capi/libonnxruntime.so.*")) if found and found.origin else []
print(libraries[0] if libraries else "")
PY
)
[ -n "$library" ] || { echo "fetch-onnxruntime: $python has no onnxruntime: pip install 'metacalo[onnx]'" >&2; exit 2; }

if [ ! -f "$folder/include/onnxruntime_cxx_api.h" ]; then
    unpacked=$(mktemp -d)
    trap 'rm -rf "$unpacked"' EXIT
    npm pack --silent --pack-destination "$unpacked" "$package@$version" > /dev/null
    archive=$unpacked/$package-$version.tgz
    echo "$sha256  $archive" | sha256sum --check --quiet
    headers=package/Plugins/iOS~/onnxruntime.xcframework/ios-arm64/onnxruntime.framework/Headers
    tar -xzf "$archive" -C "$unpacked" "$headers"
    mkdir -p "$folder/include"
    cp "$unpacked/$headers"/*.h "$folder/include/"
fi
mkdir -p "$folder/lib"
for name in libonnxruntime.so libonnxruntime.so.1; do
    ln -sf "$library" "$folder/lib/$name"
done
echo "$folder"
