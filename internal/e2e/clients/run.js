// What the scripts share: each gets the receiver's address and keys, and
// prints a line for each event that it gives to its client, as its row is to be.
const [, , url, key, gameKey, gameSecret] = process.argv;
module.exports = { url, key, gameKey, gameSecret, sent: row => console.log(JSON.stringify(row)) };
