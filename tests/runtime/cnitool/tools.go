//go:build tools

// Package tools pins the module that tests/runtime builds cnitool from: the plainest client of libcni.
package tools

import _ "github.com/containernetworking/cni/cnitool"
