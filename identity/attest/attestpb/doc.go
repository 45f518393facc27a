// Package attestpb is the generated code of attest.proto: how an identity is asked for. Regenerate with go
// generate (needs protoc; Debian: protobuf-compiler).
package attestpb

//go:generate sh ../../../tools/protoc.sh identity/attest/attestpb/attest.proto
