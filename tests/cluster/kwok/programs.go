//go:build programs

// Package kwok pins the program that plays nodes without a machine: go.mod names the release, go.sum what it consists of.
package kwok

import _ "sigs.k8s.io/kwok/cmd/kwok"
