// Package foreign reads files that Penstock did not write: somebody put them
// below a pipeline's prefix, or they are objects of ours that were copied
// without their metadata. It tells what a file is by its bytes, decompresses
// it, cuts it into rows, and makes an event of each.
//
// A row's identity is the file's key and the row's place in it, so that every
// row of the file is an event, and loading the file again is the same events.
// An id in the row counts only in these cases:
//
//   - The row is one of ours (all eleven members, each of its type), as an
//     export writes it: then it is the same event as before.
//   - The row has an event_id that is a UUID, and a name and a timestamp.
//   - A Mapping names the id.
//
// Without a Mapping, name, timestamp, user_id, session_id, properties and
// context are taken by these names, and all else is a property. So is what a
// folder says of its files, as country=fi.
//
// JSON and tables of text are read here, so that JSON keeps its types and one
// bad row rejects only itself. ClickHouse decodes Parquet, ORC, Avro and Arrow;
// what it gives comes back here as lines of JSON.
package foreign
