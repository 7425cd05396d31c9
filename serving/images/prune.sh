#!/bin/sh
# prune.sh SITE_PACKAGES: removes what no running server needs: headers, static libraries, tests, type stubs, build tools.
set -eu
cd "$1"
find . -type d \( -name tests -o -name test \) -prune -exec rm -rf {} +
find . -type f \( -name '*.a' -o -name '*.pyi' -o -name '*.h' -o -name '*.hpp' -o -name '*.pxd' -o -name '*.pyx' \) -delete
rm -rf tensorflow/include tensorflow/xla_aot_runtime_src \
  torch/include torch/bin torch/share \
  pyarrow/include pyarrow/src numpy/_core/include
# Arrow's network service, plans and SQL expressions: the generator writes Parquet files and reads CSV.
find pyarrow -name '*flight*' -exec rm -rf {} + 2>/dev/null || true
find pyarrow -name '*substrait*' -exec rm -rf {} + 2>/dev/null || true
find . -type d -empty -delete
