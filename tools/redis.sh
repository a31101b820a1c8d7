#!/usr/bin/env bash
# Sees that redis-server is there, the broker that an integration is tested with: installs Debian's if it can.
set -euo pipefail

command -v redis-server > /dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    echo "Installing redis-server, which the tests of an integration start"
    # Its own server is not wanted: a policy of 101 says that no service may be started.
    log=$( (apt-get update && apt-get install --yes --no-install-recommends redis-server) 2>&1 ) && exit 0
    echo "$log"
fi
echo "redis-server is not found, and the tests of an integration start it: install it (Debian: apt-get install redis-server)."
exit 1
