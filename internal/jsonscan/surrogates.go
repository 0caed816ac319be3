package jsonscan

// Clients cut texts in the middle of an emoji. The rest is half of a surrogate pair, which UTF-8 cannot have.

const (
	loneReplacement = `\ufffd`      // for an escape, of the same length
	encodedFFFD     = "\uFFFD"      // for the bytes of a surrogate that was encoded like a character, of the same length
	surrogateSize   = len("\uFFFD") // of these
)

// ReplaceLoneSurrogates replaces the lone surrogates in JSON text by U+FFFD, in place: escapes by an escape, and bytes
// by bytes, so that all lengths stay. It returns how many it replaced.
//
// If more of the text follows, final is false, and the last bytes may belong to an escape that continues there. Only
// the first done bytes are settled then; the rest has to be passed again, with what follows. Text that is not JSON is
// read as if all of it were within strings.
func ReplaceLoneSurrogates(text []byte, final bool) (done, replaced int) {
	for i := 0; i < len(text); {
		size, lone := 1, ""
		switch text[i] {
		case '\\':
			size, lone = escapeAt(text[i:])
		case 0xED:
			if encodedSurrogate(text[i:]) {
				size, lone = surrogateSize, encodedFFFD
			} else if len(text)-i < surrogateSize {
				size = surrogateSize
			}
		}
		if more := len(text) - i; !final && (size > more || lone == loneReplacement && more < 2*len(lone)) {
			return i, replaced
		}
		if lone != "" {
			copy(text[i:], lone)
			replaced++
		}
		i += size
	}
	return len(text), replaced
}

// escapeAt is how long the escape at the start of the text is, with its partner if it has one, and what replaces it if
// it is a lone surrogate. An escape that the text cuts off is longer than the text.
func escapeAt(text []byte) (size int, lone string) {
	if len(text) < 2 || text[1] != 'u' {
		return 2, ""
	}
	if len(text) < len(loneReplacement) {
		return len(loneReplacement), ""
	}
	r, next, ok := hex4(text, 2)
	switch {
	case !ok:
		return 2, ""
	case r < 0xD800 || r > 0xDFFF:
		return next, ""
	case r < 0xDC00:
		if _, end, ok := escapedLow(text, next); ok {
			return end, ""
		}
	}
	return next, loneReplacement
}

// encodedSurrogate reports whether the text begins with a surrogate that was encoded as if it were a character.
func encodedSurrogate(text []byte) bool {
	return len(text) >= surrogateSize && text[0] == 0xED && text[1]&0xE0 == 0xA0 && text[2]&0xC0 == 0x80
}

// replaceEncoded replaces the encoded surrogates in a string's content.
func replaceEncoded(content []byte) {
	for i := range content {
		if encodedSurrogate(content[i:]) {
			copy(content[i:], encodedFFFD)
		}
	}
}
