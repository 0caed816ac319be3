// Prints the path of the browser and its environment, for tests that drive it from Go.
const { unpack } = require('./open');

unpack().then(path => console.log(JSON.stringify({ path, env: ['LD_LIBRARY_PATH', 'FONTCONFIG_PATH'].filter(name => process.env[name]).map(name => name + '=' + process.env[name]) })));
