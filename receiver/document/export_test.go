package document

import "math/rand/v2"

// RandomSpace is a white space that means nothing.
func RandomSpace(rnd *rand.Rand) string { return randomSpace(rnd) }

// RandomObject is an object with large and small values, at most so deep.
func RandomObject(rnd *rand.Rand, depth int) string { return randomObject(rnd, depth) }
