package attest

import (
	"context"
	"log/slog"
	"net"

	"google.golang.org/grpc/credentials"
	grpcpeer "google.golang.org/grpc/peer"

	"github.com/tulle-mesh/tulle/internal/peer"
)

// localCredentials let in who package peer trusts, as the first thing on a connection.
type localCredentials struct{ log *slog.Logger }

// local is what they say of a connection.
type local struct {
	credentials.CommonAuthInfo
	peer.Credentials
}

// AuthType implements credentials.AuthInfo.
func (local) AuthType() string { return "unix" }

// ServerHandshake implements credentials.TransportCredentials.
func (l localCredentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, nil, errNotUnix
	}
	who, err := peer.Trusted(u)
	if err != nil {
		l.log.Warn("local connection refused", "pid", who.PID, "uid", who.UID, "error", err)
		return nil, nil, err
	}
	return c, local{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, who}, nil
}

// ClientHandshake implements credentials.TransportCredentials.
func (localCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errNotUnix
}

// Info implements credentials.TransportCredentials.
func (localCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "unix"}
}

// Clone implements credentials.TransportCredentials.
func (l localCredentials) Clone() credentials.TransportCredentials { return l }

// OverrideServerName implements credentials.TransportCredentials.
func (localCredentials) OverrideServerName(string) error { return nil }

// localPeer answers who is at the other end of a unix socket; ok is false on any other connection.
func localPeer(ctx context.Context) (peer.Credentials, bool) {
	if p, ok := grpcpeer.FromContext(ctx); ok {
		if l, ok := p.AuthInfo.(local); ok {
			return l.Credentials, true
		}
	}
	return peer.Credentials{}, false
}
