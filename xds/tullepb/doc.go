// Package tullepb is the generated code of tulle.proto, facts.proto and security.proto: the messages of Tulle's own that travel in and
// beside Envoy's. Regenerate with go generate (needs protoc; Debian: protobuf-compiler).
package tullepb

//go:generate sh ../../tools/protoc.sh xds/tullepb/tulle.proto
//go:generate sh ../../tools/protoc.sh xds/tullepb/facts.proto
//go:generate sh ../../tools/protoc.sh xds/tullepb/security.proto
