// Package tulle is the root of the Tulle service mesh. It holds no code, only the tests that keep the house in
// order: layers_test.go (the import order of layers.txt) and repo_test.go. Start reading at ARCHITECTURE.md.
package tulle
