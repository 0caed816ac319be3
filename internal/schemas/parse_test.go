package schemas

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, text := range []string{
		`{}`, `[]`, `null`, `true`, `-0.50e+3`, `18446744073709551615`, `"a\"\u00e9\ud83d\ude00"`, ` { } `, " [ \n] ",
		`{"a":1,"b":[{"c":null,"d":[[],{}]},false,"x"],"\u0061\n":{"e": 1e300 } , "f" : [ 1 , 2 ] }`,
	} {
		var want any
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		if err := d.Decode(&want); err != nil {
			t.Fatal(err)
		}
		if got := parse([]byte(text)); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %#v, want %#v", text, got, want)
		}
	}
}
