// Runs Azurite's blob service on a free port of 127.0.0.1, in memory, with one container, and signs URLs of its blobs.
// Not here: tables and queues, and any client; account and key are the well-known ones of every Azurite.
//
//   node azurite.mjs
//
// Prints the container's URL when it is ready. Every line on stdin, `PERMISSIONS BLOB` (`cw ep0` to upload, `r ep0` to
// download), is then answered by one line on stdout: a URL of that blob, signed for ten minutes. The end of stdin ends it.

import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import {
  BlobSASPermissions, BlobServiceClient, StorageSharedKeyCredential, generateBlobSASQueryParameters
} from '@azure/storage-blob'

const ACCOUNT = 'devstoreaccount1'
const KEY = 'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=='
const CONTAINER = 'actions-results'
const LIFETIME_MS = 10 * 60 * 1000
// The version that GitHub's signed URLs name.
const SAS_VERSION = '2021-12-02'

const print = process.stdout.write.bind(process.stdout)
const credential = new StorageSharedKeyCredential(ACCOUNT, KEY)

// Azurite prints its address and nothing else says which port it got; stdout is for URLs, so its lines go to stderr.
const listening = new Promise(resolve => {
  console.log = line => {
    process.stderr.write(`${line}\n`)
    const address = /successfully listens on (\S+)/.exec(line)
    if (address) resolve(address[1])
  }
})

const sign = (container, permissions, blob) => {
  const now = Date.now()
  const query = generateBlobSASQueryParameters({
    containerName: CONTAINER,
    blobName: blob,
    permissions: BlobSASPermissions.parse(permissions),
    startsOn: new Date(now - 60_000),
    expiresOn: new Date(now + LIFETIME_MS),
    version: SAS_VERSION
  }, credential)
  return `${container}/${encodeURIComponent(blob)}?${query}`
}

process.argv = [
  ...process.argv.slice(0, 2), '--blobHost', '127.0.0.1', '--blobPort', '0',
  '--inMemoryPersistence', '--skipApiVersionCheck', '--disableTelemetry', '--silent'
]
createRequire(import.meta.url)('azurite/dist/src/blob/main.js')

const container = `${await listening}/${ACCOUNT}/${CONTAINER}`
const service = new BlobServiceClient(container.slice(0, container.lastIndexOf('/')), credential)
await service.createContainer(CONTAINER)
print(`${container}\n`)

for await (const line of createInterface({ input: process.stdin })) {
  const [permissions, blob] = line.trim().split(' ')
  try {
    print(`${sign(container, permissions, blob)}\n`)
  } catch (error) {
    print(`error: cannot sign ${JSON.stringify(line)}: ${error.message}\n`)
  }
}
process.exit(0)
