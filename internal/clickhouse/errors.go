package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/penstock/penstock/internal/retry"
)

// meaning is what an error of the server means for the request that caused it.
type meaning uint8

const (
	// For an insert, or any query of ours.
	dataFault   meaning = 1 << iota // the rows are at fault, or what a computed column or constraint makes of them
	outage                          // the server or its setup is at fault, not the rows
	serverFiles                     // the server's disk is broken, or the rows exceed its limit of open files

	// For a file of the bucket that the server decodes.
	fileContent // the file's bytes are at fault: a retry fails too
	unreachable // the server cannot read the file: network, S3, a missing grant, a forbidden URL
	fileOutage  // the server is busy, or the query was cancelled
)

// Codes that are named in this package.
const (
	unknownIdentifier      = 47
	unknownTable           = 60
	memoryLimit            = 241
	stdException           = 1001
	cannotExtractStructure = 636 // wraps any error while the server reads a file's columns
)

// codes lists the codes of ClickHouse's ErrorCodes.cpp with a known meaning.
var codes = map[int32]struct {
	name string
	meaning
}{
	6:    {"CANNOT_PARSE_TEXT", dataFault},
	16:   {"NO_SUCH_COLUMN_IN_TABLE", outage},
	25:   {"CANNOT_PARSE_ESCAPE_SEQUENCE", dataFault},
	26:   {"CANNOT_PARSE_QUOTED_STRING", dataFault},
	27:   {"CANNOT_PARSE_INPUT_ASSERTION_FAILED", dataFault | fileContent},
	33:   {"CANNOT_READ_ALL_DATA", dataFault},
	36:   {"BAD_ARGUMENTS", fileContent},
	38:   {"CANNOT_PARSE_DATE", dataFault},
	41:   {"CANNOT_PARSE_DATETIME", dataFault},
	44:   {"ILLEGAL_COLUMN", fileContent},
	47:   {"UNKNOWN_IDENTIFIER", outage},
	48:   {"NOT_IMPLEMENTED", fileContent},
	50:   {"UNKNOWN_TYPE", fileContent},
	53:   {"TYPE_MISMATCH", dataFault},
	60:   {"UNKNOWN_TABLE", outage},
	69:   {"ARGUMENT_OUT_OF_BOUND", dataFault},
	70:   {"CANNOT_CONVERT_TYPE", dataFault},
	72:   {"CANNOT_PARSE_NUMBER", dataFault},
	74:   {"CANNOT_READ_FROM_FILE_DESCRIPTOR", serverFiles},
	75:   {"CANNOT_WRITE_TO_FILE_DESCRIPTOR", serverFiles},
	76:   {"CANNOT_OPEN_FILE", serverFiles},
	77:   {"CANNOT_CLOSE_FILE", serverFiles},
	79:   {"INCORRECT_FILE_NAME", serverFiles},
	81:   {"UNKNOWN_DATABASE", outage},
	88:   {"CANNOT_TRUNCATE_FILE", serverFiles},
	117:  {"INCORRECT_DATA", dataFault | fileContent},
	128:  {"TOO_LARGE_ARRAY_SIZE", dataFault},
	130:  {"CANNOT_READ_ARRAY_FROM_TEXT", dataFault},
	131:  {"TOO_LARGE_STRING_SIZE", dataFault},
	153:  {"ILLEGAL_DIVISION", dataFault},
	159:  {"TIMEOUT_EXCEEDED", outage | fileOutage},
	160:  {"TOO_SLOW", outage | fileOutage},
	164:  {"READONLY", outage | fileOutage},
	190:  {"SIZES_OF_ARRAYS_DONT_MATCH", dataFault},
	198:  {"DNS_ERROR", unreachable},
	202:  {"TOO_MANY_SIMULTANEOUS_QUERIES", outage | fileOutage},
	203:  {"NO_FREE_CONNECTION", outage},
	209:  {"SOCKET_TIMEOUT", outage | unreachable},
	210:  {"NETWORK_ERROR", outage | unreachable},
	225:  {"NO_ZOOKEEPER", outage},
	241:  {"MEMORY_LIMIT_EXCEEDED", outage},
	242:  {"TABLE_IS_READ_ONLY", outage | fileOutage},
	243:  {"NOT_ENOUGH_SPACE", outage | fileOutage},
	252:  {"TOO_MANY_PARTS", outage | fileOutage},
	271:  {"CANNOT_DECOMPRESS", fileContent},
	279:  {"ALL_CONNECTION_TRIES_FAILED", outage | unreachable},
	319:  {"UNKNOWN_STATUS_OF_INSERT", outage | fileOutage},
	321:  {"VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE", dataFault | fileContent},
	349:  {"CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN", dataFault},
	376:  {"CANNOT_PARSE_UUID", dataFault},
	394:  {"QUERY_WAS_CANCELLED", fileOutage},
	395:  {"FUNCTION_THROW_IF_VALUE_IS_NON_ZERO", dataFault},
	407:  {"DECIMAL_OVERFLOW", dataFault},
	425:  {"SYSTEM_ERROR", outage},
	439:  {"CANNOT_SCHEDULE_TASK", outage | fileOutage},
	467:  {"CANNOT_PARSE_BOOL", dataFault},
	469:  {"VIOLATED_CONSTRAINT", dataFault},
	491:  {"UNACCEPTABLE_URL", unreachable},
	492:  {"ACCESS_ENTITY_NOT_FOUND", unreachable},
	497:  {"ACCESS_DENIED", outage | unreachable},
	499:  {"S3_ERROR", unreachable},
	516:  {"AUTHENTICATION_FAILED", outage | fileOutage},
	632:  {"UNEXPECTED_DATA_AFTER_PARSED_VALUE", dataFault},
	636:  {"CANNOT_EXTRACT_TABLE_STRUCTURE", dataFault},
	675:  {"CANNOT_PARSE_IPV4", dataFault},
	676:  {"CANNOT_PARSE_IPV6", dataFault},
	691:  {"UNKNOWN_ELEMENT_OF_ENUM", dataFault},
	696:  {"ASYNC_LOAD_CANCELED", outage},
	760:  {"UNICODE_ERROR", dataFault},
	999:  {"KEEPER_EXCEPTION", outage | fileOutage},
	1000: {"POCO_EXCEPTION", serverFiles | unreachable},
	1001: {"STD_EXCEPTION", serverFiles},
}

func (m meaning) has(other meaning) bool { return m&other != 0 }

// class classifies an error, once. Any error that is not about the data is an outage, which never counts against an
// object.
func class(err error) error {
	code, said := codeOf(err)
	switch {
	case err == nil, !said && errors.Is(err, context.Canceled):
		return err
	case said && codes[code].has(dataFault):
		return retry.AsCode(retry.Permanent, int(code), err)
	}
	return retry.AsCode(retry.Outage, int(code), err)
}

// classInsert is class for an insert. A code that is neither about the data nor an outage stays undecided, because a
// computed column can throw any error.
func classInsert(err error) error {
	if code, said := codeOf(err); said && !codes[code].has(dataFault|outage) {
		return retry.AsCode(retry.Unknown, int(code), err)
	}
	return class(err)
}

// codeOf returns the server's code.
func codeOf(err error) (code int32, said bool) {
	if ex, ok := errors.AsType[*clickhouse.Exception](err); ok {
		return ex.Code, true
	}
	return 0, false
}

var thriftError = regexp.MustCompile(`\bapache::thrift::\w+::T\w+Exception\b`)

// fileSays reports whether an error about a file has one of the meanings, by its code and text.
func fileSays(m meaning, code int32, text string) bool {
	// Parquet describes footer and pages by Thrift. The server has no code for its errors. Other errors may quote a key
	// that has such a text.
	if m.has(fileContent) && (code == stdException || code == cannotExtractStructure) && thriftError.MatchString(text) {
		return true
	}
	if code != cannotExtractStructure {
		return codes[code].has(m)
	}
	for inner, c := range codes {
		if c.has(m) && strings.Contains(text, fmt.Sprintf("Code: %d.", inner)) {
			return true
		}
	}
	return false
}
