package foreign

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/penstock/penstock/internal/jsonscan"
)

// Mapping says where rows of files below a prefix have the fields of an event. Each field is a list of expressions; the
// first one with a value in the row counts. An expression is one of these:
//
//   - A path: keys joined by dots. In an array of objects with key and value, as
//     BigQuery writes them, a path continues with the key.
//   - Several paths joined by " + ": their values make one text.
//   - "=TEXT": that text in every row.
//
// Null and empty text count as absent. An empty field means the member with the field's own name.
type Mapping struct {
	Prefix  string // of keys, including the pipeline's prefix
	Project string // project of all rows; empty: none
	Rows    string // path to an array of rows in each document; empty: a document is a row
	Keep    bool   // members that become fields also stay properties

	Name, Timestamp, EventID, UserID, SessionID, Properties []string
}

// profiles are the layouts of exports as their vendors document them.
var profiles = map[string]Mapping{
	// https://amplitude.com/docs/apis/analytics/export#response-schema
	"amplitude": {
		Name: []string{"event_type"}, Timestamp: []string{"event_time"},
		EventID: []string{"uuid", "device_id + $insert_id", "device_id + insert_id"},
		UserID:  []string{"user_id", "device_id"}, SessionID: []string{"session_id"},
		Properties: []string{"event_properties"},
	},
	// https://developer.mixpanel.com/reference/raw-event-export; Mixpanel recognizes resends by event, time, distinct_id
	// and $insert_id.
	"mixpanel": {
		Name: []string{"event"}, Timestamp: []string{"properties.time"},
		EventID: []string{"properties.distinct_id + properties.$insert_id"},
		UserID:  []string{"properties.distinct_id"}, SessionID: []string{"properties.$session_id"},
		Properties: []string{"properties"},
	},
	// https://posthog.com/docs/cdp/batch-exports/s3
	"posthog": {
		Name: []string{"event"}, Timestamp: []string{"timestamp"}, EventID: []string{"uuid"},
		UserID: []string{"distinct_id"}, SessionID: []string{"properties.$session_id"}, Properties: []string{"properties"},
	},
	// https://segment.com/docs/connections/storage/catalog/aws-s3/
	"segment": {
		Name: []string{"event", "type"}, Timestamp: []string{"timestamp", "originalTimestamp"},
		EventID: []string{"messageId"},
		UserID:  []string{"userId", "anonymousId"}, SessionID: []string{"context.sessionId"},
		Properties: []string{"properties", "traits"},
	},
	// https://docs.litellm.ai/docs/proxy/logging_spec; the same names as the callback's events, so a logged request is one
	// event whichever way it arrives. llm_calls reads its members.
	"litellm": {
		Name: []string{"=llm_call"}, Timestamp: []string{"startTime"}, EventID: []string{"id"},
		UserID: []string{"end_user", "metadata.user_api_key_user_id"}, SessionID: []string{"trace_id"}, Keep: true,
	},
	// https://langfuse.com/docs/api-and-data-platform/features/export-to-blob-storage:
	// observations have a type, traces and scores have none.
	"langfuse": {
		Name: []string{"type", "=trace"}, Timestamp: []string{"start_time", "timestamp"}, EventID: []string{"id"},
		UserID: []string{"user_id"}, SessionID: []string{"session_id"}, Keep: true,
	},
	// https://support.google.com/analytics/answer/7029846; the export has no id. Events differ by their place in the
	// client's batch. Files from before 2024 lack it, so there all of the event's content is the identity.
	"ga4": {
		Name: []string{"event_name"}, Timestamp: []string{"event_timestamp"},
		EventID: []string{"stream_id + user_pseudo_id + event_name + event_timestamp + event_bundle_sequence_id + " +
			"batch_page_id + batch_ordering_id + batch_event_index + event_params"},
		UserID: []string{"user_id", "user_pseudo_id"}, SessionID: []string{"event_params.ga_session_id"},
		Properties: []string{"event_params"},
	},
}

// Profile returns the mapping of a vendor's export. Fields that m sets replace the profile's.
func Profile(name string, m Mapping) (Mapping, error) {
	p, ok := profiles[name]
	if !ok {
		return m, fmt.Errorf(
			"there is no profile %q; there are amplitude, mixpanel, posthog, segment, ga4, litellm and langfuse", name)
	}
	for _, f := range []struct{ to, from *[]string }{
		{&m.Name, &p.Name}, {&m.Timestamp, &p.Timestamp}, {&m.EventID, &p.EventID}, {&m.UserID, &p.UserID},
		{&m.SessionID, &p.SessionID}, {&m.Properties, &p.Properties},
	} {
		if len(*f.to) == 0 {
			*f.to = *f.from
		}
	}
	if m.Rows == "" {
		m.Rows = p.Rows
	}
	m.Keep = m.Keep || p.Keep
	return m, nil
}

// Mappings are the mappings of a configuration.
type Mappings []Mapping

// Of returns the mapping with the longest prefix of a key; nil: none.
func (all Mappings) Of(key string) *Mapping {
	var best *Mapping
	for i := range all {
		if m := &all[i]; strings.HasPrefix(key, m.Prefix) && (best == nil || len(m.Prefix) > len(best.Prefix)) {
			best = m
		}
	}
	return best
}

// field finds a field's value in rows.
type field struct {
	ways [][]route // alternatives; the values of one alternative's paths make one text
	name string    // for messages
	own  bool      // set by the mapping, not by default
}

// route is a path's keys. whole is the path as a single key, which is tried first.
type route struct {
	whole string
	keys  []string
}

func newField(name string, ways []string) field {
	f := field{name: name, own: len(ways) > 0}
	if !f.own {
		ways = []string{name}
	}
	for _, way := range ways {
		var paths []route
		for part := range strings.SplitSeq(way, " + ") {
			part = strings.TrimSpace(part)
			paths = append(paths, route{part, strings.Split(part, ".")})
		}
		f.ways = append(f.ways, paths)
	}
	return f
}

// finder looks values up in one row.
type finder struct {
	scan jsonscan.Scanner // for values within the row
}

// find returns the first value in the row for a field, and the index of its member. The index is -1 if the value lies
// within a member or is composed of several.
func (f *finder) find(members []jsonscan.Member, of *field) (value jsonscan.Member, index int) {
	for _, way := range of.ways {
		if len(way) == 1 {
			if m, i := f.follow(members, way[0]); m.Kind != jsonscan.Null && string(m.Value) != `""` {
				return m, i
			}
		} else if text := f.joined(members, way); text != nil {
			return jsonscan.Member{Key: []byte(of.name), Value: text, Kind: jsonscan.String}, -1
		}
	}
	return jsonscan.Member{}, -1
}

// joined composes one text of several values; different values never give the same text. It is nil if the row has only
// the first value, which identifies nothing.
func (f *finder) joined(members []jsonscan.Member, way []route) []byte {
	var all []byte
	found := 0
	for i, p := range way {
		m, _ := f.follow(members, p)
		text := []byte{}
		if m.Kind != jsonscan.Null {
			text = f.identityText(&m)
		}
		if i > 0 && len(text) > 0 {
			found++
		}
		all = fmt.Appendf(all, "%d %s", len(text), text)
	}
	if found == 0 {
		return nil
	}
	return jsonscan.AppendQuoted(nil, all)
}

// identityText is rawText, except for BigQuery's arrays of keys and values. In JSON, BigQuery quotes whole numbers and
// may omit nulls; in Parquet it does neither.
func (f *finder) identityText(m *jsonscan.Member) []byte {
	if m.Kind == jsonscan.Array {
		var all []byte
		for _, p := range f.pairs(m.Value) {
			if p.Kind != jsonscan.Null {
				value := bytes.TrimSuffix(rawText(&p), []byte(".0"))
				all = fmt.Appendf(all, "%d %s%d %s", len(p.Key), p.Key, len(value), value)
			}
		}
		if all != nil {
			return all
		}
	}
	return rawText(m)
}

// rawText returns the content of a string, and any other value as JSON.
func rawText(m *jsonscan.Member) []byte {
	if m.Kind == jsonscan.String {
		return m.Text()
	}
	return m.Value
}

// follow returns the value at a path; Kind Null: there is none.
func (f *finder) follow(members []jsonscan.Member, p route) (jsonscan.Member, int) {
	if text, ok := strings.CutPrefix(p.whole, "="); ok {
		return jsonscan.Member{Kind: jsonscan.String, Value: jsonscan.AppendQuoted(nil, []byte(text))}, -1
	}
	for i := range members {
		if string(members[i].Key) == p.whole {
			return members[i], i
		}
	}
	if len(p.keys) == 1 {
		return jsonscan.Member{}, -1
	}
	m, _ := member(members, p.keys[0])
	for _, key := range p.keys[1:] {
		m = f.step(m, key)
	}
	return m, -1
}

func member(members []jsonscan.Member, key string) (jsonscan.Member, bool) {
	for i := range members {
		if string(members[i].Key) == key {
			return members[i], true
		}
	}
	return jsonscan.Member{}, false
}

// step returns the value at a key within a value.
func (f *finder) step(m jsonscan.Member, key string) jsonscan.Member {
	switch m.Kind {
	case jsonscan.String: // JSON in a text
		if inner := jsonscan.TrimSpace(m.Text()); len(inner) > 0 && inner[0] == '{' {
			m = jsonscan.Member{Kind: jsonscan.Object, Value: inner}
			return f.step(m, key)
		}
	case jsonscan.Object:
		members, _, err := f.scan.Object(m.Value)
		if err != nil {
			return jsonscan.Member{}
		}
		found, _ := member(members, key)
		return found
	case jsonscan.Array:
		for _, p := range f.pairs(m.Value) {
			if string(p.Key) == key {
				return p
			}
		}
	}
	return jsonscan.Member{}
}

// pairs returns the members that an array of objects with key and value stands for; nil: it is another array. BigQuery
// writes a value as an object with one field for each type; the field that is set counts.
func (f *finder) pairs(array []byte) []jsonscan.Member {
	var all []jsonscan.Member
	for _, element := range elements(array) {
		members, n, err := f.scan.Object(element)
		if err != nil || n != len(element) {
			return nil
		}
		key, _ := member(members, "key")
		value, ok := member(members, "value")
		if key.Kind != jsonscan.String || !ok {
			return nil
		}
		if value.Kind == jsonscan.Object {
			value = f.typed(value)
		}
		value.Key = bytes.Clone(key.Text())
		all = append(all, value)
	}
	return all
}

// typed returns the value within {"string_value":…,"int_value":…} that is not null. BigQuery writes whole numbers as
// text; they become numbers again.
func (f *finder) typed(value jsonscan.Member) jsonscan.Member {
	members, _, err := f.scan.Object(value.Value)
	if err != nil {
		return value
	}
	for _, kind := range []string{"string_value", "int_value", "float_value", "double_value"} {
		m, _ := member(members, kind)
		if m.Kind == jsonscan.Null {
			continue
		}
		if text := rawText(&m); kind != "string_value" && m.Kind == jsonscan.String && numeric(text) != textCell {
			m.Kind, m.Value = jsonscan.Number, text
		}
		return m
	}
	if _, is := member(members, "string_value"); is || len(members) == 0 {
		return jsonscan.Member{Kind: jsonscan.Null, Value: []byte("null")}
	}
	return value
}

// elements returns the values of an array that was scanned before, as views into it.
func elements(array []byte) (all [][]byte) {
	for v := jsonscan.NewValues(array, false); ; {
		value, err := v.Next()
		if err != nil {
			return all
		}
		all = append(all, value[:v.Take(jsonscan.Extent(value))])
	}
}
