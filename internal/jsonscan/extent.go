package jsonscan

// Extent is where the value at the start of src ends, by its brackets and strings alone; 0: it does not end.
func Extent(src []byte) int {
	depth := 0
	for i := 0; i < len(src); i++ {
		switch src[i] {
		case '"':
			if i = stringEnd(src, i+1); i >= len(src) {
				return 0
			}
		case '{', '[':
			depth++
			continue
		case '}', ']':
			if depth == 0 {
				return i // of the array around a bare number
			}
			depth--
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return i
			}
			continue
		default:
			continue
		}
		if depth == 0 {
			return i + 1
		}
	}
	if depth == 0 {
		return len(src) // a bare number
	}
	return 0
}

// stringEnd is where the quote is that ends a string whose content begins at src[i]. The text need not be valid.
func stringEnd(src []byte, i int) int {
	for {
		i, _ = plainRun(src, i)
		if i >= len(src) || src[i] == '"' {
			return i
		}
		if src[i] == '\\' {
			i++
		}
		i++
	}
}
