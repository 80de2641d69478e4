// The lab's Node servers: `node server.js CERTS PORT=KIND ...`
const fs = require('fs');
const http = require('http');
const http2 = require('http2');
const https = require('https');

const [certs, ...specs] = process.argv.slice(2);
const pair = (name) => ({ cert: fs.readFileSync(`${certs}/${name}.pem`), key: fs.readFileSync(`${certs}/${name}.key`) });
const answer = (request, response) => {
  request.resume();
  request.on('end', () => response.end('ok\n'));
};

const kinds = {
  http: () => http.createServer(answer),
  // Closes idle connections after a second, like many a default that is shorter than its proxy's.
  brief: () => Object.assign(http.createServer(answer), { keepAliveTimeout: 1000 }),
  h2: () => http2.createServer(answer),
  'https-good': () => https.createServer(pair('good'), answer),
  'https-self': () => https.createServer(pair('self'), answer),
  'https-other': () => https.createServer(pair('other'), answer),
  'https-expired': () => https.createServer(pair('expired'), answer),
  // Offers no version that a proxy of today accepts.
  'https-ancient': () => https.createServer(
    { ...pair('good'), minVersion: 'TLSv1', maxVersion: 'TLSv1', ciphers: 'DEFAULT:@SECLEVEL=0' }, answer),
};

for (const spec of specs) {
  const [port, kind] = spec.split('=');
  kinds[kind]().listen(Number(port), '127.0.0.1');
}
