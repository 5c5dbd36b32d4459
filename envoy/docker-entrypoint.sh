#!/bin/sh
# Starts Envoy with /etc/envoy/envoy.yaml, in which the placeholder of the gateway token is replaced
# by WEIR_GATEWAY_TOKEN: Envoy itself reads no environment variables.
set -eu

: "${WEIR_GATEWAY_TOKEN:?set it to the WEIR_GATEWAY_TOKEN of the control plane}"
case $WEIR_GATEWAY_TOKEN in
*[!A-Za-z0-9._~+/=-]*)
    echo "WEIR_GATEWAY_TOKEN has a character that a bearer token must not have; allowed are A-Z a-z 0-9 - . _ ~ + / =" >&2
    exit 1
    ;;
esac

umask 077
sed "s|change-me-gateway-token|$WEIR_GATEWAY_TOKEN|" /etc/envoy/envoy.yaml >/tmp/envoy.yaml
exec envoy --config-path /tmp/envoy.yaml "$@"
