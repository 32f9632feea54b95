package main

import (
	"testing"

	"github.com/loam-run/loam"
)

func TestProcessOneHasNoSuccessor(t *testing.T) {
	if _, err := successor(1)(""); loam.CodeOf(err) != loam.FailedPrecondition || loam.HintOf(err) == "" {
		t.Error(err)
	}
}
