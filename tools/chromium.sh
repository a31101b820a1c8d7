#!/usr/bin/env bash
# Sees that chromium and its driver are there, which the tests of a page open it with: installs Debian's if it can.
set -euo pipefail

command -v chromium > /dev/null && command -v chromedriver > /dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    echo "Installing chromium and its driver, which the tests of a page open it with"
    log=$( (apt-get update && apt-get install --yes --no-install-recommends chromium chromium-driver) 2>&1 ) && exit 0
    echo "$log"
fi
echo "chromium and chromedriver are not found, and the tests of a page open it with them: install them" \
    "(Debian: apt-get install chromium chromium-driver)."
exit 1
