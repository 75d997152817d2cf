package voxplain

import (
	"net"
	"strings"

	"google.golang.org/grpc/codes"
)

// isThisHost tells whether HOST:PORT, with or without gRPC's dns: or passthrough:, or unix:PATH, is this host alone.
func isThisHost(server string) bool {
	if strings.HasPrefix(server, "unix:") {
		return true
	}
	for _, scheme := range []string{"dns:///", "passthrough:///", "dns:"} {
		server = strings.TrimPrefix(server, scheme)
	}
	host, _, err := net.SplitHostPort(server)
	if err != nil {
		host = strings.Trim(server, "[]")
	}
	address := net.ParseIP(host)
	return host == "localhost" || (address != nil && address.IsLoopback())
}

// checkToken refuses to send a token where others could read it.
func checkToken(server string, encrypted bool) error {
	if encrypted || isThisHost(server) {
		return nil
	}
	message := "a token would leave this host in plaintext: use TLS"
	return &Error{Code: codes.InvalidArgument, Reason: "ACCESS_INVALID", Message: message, Field: "access.token"}
}
