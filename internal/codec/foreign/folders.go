package foreign

import (
	"net/url"
	"strings"

	"github.com/penstock/penstock/internal/jsonscan"
)

// folderMembers returns values from the names of a file's folders, as Hive, Spark and DuckDB write them: country=fi,
// with %XX for special characters. The file itself does not have them. The day and hour right below the pipeline's
// prefix are Penstock's own.
func folderMembers(key string) []jsonscan.Member {
	parts := strings.Split(key, "/")
	parts = parts[:len(parts)-1]
	if len(parts) > 0 {
		parts = parts[1:]
	}
	for _, own := range []string{"dt=", "hr="} {
		if len(parts) > 0 && strings.HasPrefix(parts[0], own) {
			parts = parts[1:]
		}
	}
	var all []jsonscan.Member
	for _, part := range parts {
		name, value, ok := strings.Cut(part, "=")
		if !ok || name == "" || value == "" || value == "__HIVE_DEFAULT_PARTITION__" {
			continue
		}
		if text, err := url.PathUnescape(value); err == nil {
			value = text
		}
		value = strings.ToValidUTF8(value, "\uFFFD")
		m := jsonscan.Member{Key: []byte(strings.ToValidUTF8(name, "\uFFFD")), Kind: jsonscan.String,
			Value: jsonscan.AppendQuoted(nil, []byte(value))}
		if numeric([]byte(value)) != textCell {
			m.Kind, m.Value = jsonscan.Number, []byte(value)
		}
		all = append(all, m)
	}
	return all
}
