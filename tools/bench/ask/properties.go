package ask

import (
	"slices"
	"strconv"
)

// properties writes a JSON object and records its paths. The generator's keys and texts need no escapes.
type properties struct {
	buf   []byte
	paths []string
	group string // the open object, with a trailing dot
}

func (p *properties) begin() {
	p.buf, p.paths, p.group = append(p.buf[:0], '{'), p.paths[:0], ""
}

func (p *properties) end() (text string, paths []string) {
	return string(append(p.buf, '}')), slices.Clone(p.paths)
}

func (p *properties) key(key string) {
	p.comma(key)
	p.paths = append(p.paths, p.group+key)
}

func (p *properties) comma(key string) {
	if p.buf[len(p.buf)-1] != '{' {
		p.buf = append(p.buf, ',')
	}
	p.buf = append(append(append(p.buf, '"'), key...), `":`...)
}

func (p *properties) open(key string) {
	p.comma(key)
	p.buf, p.group = append(p.buf, '{'), key+"."
}

func (p *properties) shut() { p.buf, p.group = append(p.buf, '}'), "" }

func (p *properties) text(key, value string) {
	p.key(key)
	p.buf = append(append(append(p.buf, '"'), value...), '"')
}

func (p *properties) integer(key string, value int64) {
	p.key(key)
	p.buf = strconv.AppendInt(p.buf, value, 10)
}

func (p *properties) float(key string, value float64) {
	p.key(key)
	p.buf = strconv.AppendFloat(p.buf, value, 'f', -1, 64)
}

func (p *properties) boolean(key string, value bool) {
	p.key(key)
	p.buf = strconv.AppendBool(p.buf, value)
}

// price writes a price as clients do: some as text, whole ones as integers or with zeros.
func (p *properties) price(key string, value float64, asText, zeros bool) {
	digits := -1
	if zeros {
		digits = 2
	}
	text := strconv.FormatFloat(value, 'f', digits, 64)
	if asText {
		p.text(key, text)
		return
	}
	p.key(key)
	p.buf = append(p.buf, text...)
}
