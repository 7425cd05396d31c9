#!/bin/sh
# unpack.sh NAME FILE SHA256 FILENAME TARGET: puts the model into TARGET/NAME, but only if the checksum is right.
# FILENAME is the URL's: .mar archives are kept whole, everything else is a tar.
set -eu
name=$1
file=$2
expected=$3
filename=$4
target=$5

found=$(sha256sum "$file" | cut -d ' ' -f 1)
if [ "$found" != "$expected" ]; then
  echo "servestorm: the download of model $name has SHA-256 $found and not $expected: correct models[].source.url.sha256, or find out who changed the file." >&2
  exit 1
fi

part=$target/.part-$name
rm -rf "$part" "${target:?}/$name"
mkdir "$part"
case $filename in
  *.mar) mv "$file" "$part/$name.mar" ;;
  *)
    if ! tar -xf "$file" -C "$part"; then
      echo "servestorm: the download of model $name is no tar archive: pack the export as .tar or .tar.gz." >&2
      exit 1
    fi
    rm "$file"
    ;;
esac
# An archive may hold the model's files, or one folder of the model's name with them.
if [ -d "$part/$name" ]; then
  mv "$part/$name" "$target/$name"
  rm -rf "$part"
else
  mv "$part" "$target/$name"
fi
