// Package fairleadv1 is the public API of a fairlead director: messages and
// services, generated from fairlead.proto. Others may build on it.
package fairleadv1

//go:generate go build -o ../../../bin/ google.golang.org/protobuf/cmd/protoc-gen-go connectrpc.com/connect/cmd/protoc-gen-connect-go
//go:generate protoc -I ../.. --plugin=../../../bin/protoc-gen-go --plugin=../../../bin/protoc-gen-connect-go --go_out=../.. --go_opt=paths=source_relative --connect-go_out=../.. --connect-go_opt=paths=source_relative fairlead/v1/fairlead.proto
