//go:build !chaos

// Package faultpoint lets tests kill a process at a named place in its work.
// Only a binary that is built with the tag chaos has them; in all others Hit
// is nothing.
package faultpoint

// Hit is where a test may have the process killed.
func Hit(string) {}

// Setting is def; tests may ask for another number.
func Setting(_ string, def int) int { return def }
