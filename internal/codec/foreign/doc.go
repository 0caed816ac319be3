// Package foreign reads files that Penstock did not write. Either somebody put them below a pipeline's prefix, or they
// are copies of our objects without metadata. The package detects a file's format by its bytes, decompresses it, cuts
// it into rows, and turns each row into an event.
//
// The file's key and the row's place identify a row. So every row becomes an event, and loading the file again gives
// the same events. An id in the row counts only in these cases:
//
//   - The row is one of ours (all eleven members, each of its type), as an
//     export writes it. Then it is the same event as before.
//   - The row has an event_id that is a UUID, and a name and a timestamp.
//   - A Mapping names the id.
//
// Without a Mapping, the members name, timestamp, user_id, session_id, properties and context become these fields. All
// other members become properties, and so do values in the names of folders, such as country=fi.
//
// This package reads JSON and text tables itself, so JSON keeps its types and a bad row rejects only itself. ClickHouse
// decodes Parquet, ORC, Avro and Arrow into lines of JSON, which come back here.
package foreign
