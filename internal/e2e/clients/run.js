// The scripts share this. Each script gets the receiver's address and keys. It prints a line for each event that it
// gives to its client: the row that the test expects.
const [, , url, key, gameKey, gameSecret] = process.argv;
module.exports = { url, key, gameKey, gameSecret, sent: row => console.log(JSON.stringify(row)) };
