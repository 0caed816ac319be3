// What the scripts share: each gets the receiver's address and a key, and prints
// a line for each event that it gives to its client, as its row is to be.
const [, , url, key] = process.argv;
module.exports = { url, key, sent: row => console.log(JSON.stringify(row)) };
