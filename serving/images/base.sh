#!/bin/sh
# base.sh FOLDER MIRROR: a small Debian bookworm with Python 3.11 and tini in FOLDER, security updates included; as root.
set -eu
root=$1
mirror=$2
# Without Debian's keys on this machine debootstrap would only warn.
debootstrap --force-check-gpg --variant=minbase --include=ca-certificates,libpython3.11-stdlib,python3.11,tini bookworm "$root" "$mirror"
cat >"$root/etc/apt/sources.list" <<END
deb $mirror bookworm main
deb $mirror bookworm-updates main
deb ${mirror}-security bookworm-security main
END
# Containers start no services, and an image keeps neither manuals nor package caches.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
printf 'path-exclude /usr/share/doc/*\npath-include /usr/share/doc/*/copyright\npath-exclude /usr/share/man/*\npath-exclude /usr/share/locale/*\npath-exclude /usr/share/info/*\n' \
  >"$root/etc/dpkg/dpkg.cfg.d/slim"
echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/unsafe-io"
printf 'APT::Install-Recommends "false";\nDir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n' >"$root/etc/apt/apt.conf.d/slim"
DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get -qq update
DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get -qq -y upgrade
chroot "$root" apt-get clean
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/* "$root"/var/log/* "$root"/usr/share/man "$root"/usr/share/locale/* \
  "$root"/usr/share/info "$root"/tmp/*
find "$root/usr/share/doc" -type f ! -name copyright -delete
find "$root/usr/share/doc" -type d -empty -delete
rm -f "$root/etc/hostname" "$root/etc/resolv.conf" "$root/etc/machine-id"
