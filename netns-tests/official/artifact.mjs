// Drives GitHub's own client, @actions/artifact, through one verb and prints the outcome as one line of JSON on stdout.
// Not here: the server (ACTIONS_RESULTS_URL, ACTIONS_RUNTIME_TOKEN and, for the verbs of REST, GITHUB_API_URL name it).
//
//   node artifact.mjs upload NAME FILE...      a zip of the files
//   node artifact.mjs upload-raw FILE          the file itself; the artifact takes its name
//   node artifact.mjs list | rest-list         every artifact of the run
//   node artifact.mjs get NAME | rest-get NAME
//   node artifact.mjs download ID DIR DIGEST | rest-download ID DIR DIGEST
//   node artifact.mjs delete NAME | rest-delete NAME
//
// The verbs of REST read FIND_TOKEN, FIND_RUN, FIND_OWNER and FIND_REPO. Exit 1: the client threw, and `error` says what.

import { basename, dirname } from 'node:path'
import { DefaultArtifactClient } from '@actions/artifact'

const client = new DefaultArtifactClient()

const findBy = () => ({
  findBy: {
    token: process.env.FIND_TOKEN,
    workflowRunId: Number(process.env.FIND_RUN),
    repositoryOwner: process.env.FIND_OWNER,
    repositoryName: process.env.FIND_REPO
  }
})

const verbs = {
  upload: (name, ...files) => client.uploadArtifact(name, files, dirname(files[0])),
  'upload-raw': file => client.uploadArtifact(basename(file), [file], dirname(file), { skipArchive: true }),
  list: () => client.listArtifacts(),
  get: name => client.getArtifact(name),
  download: (id, path, expectedHash) => client.downloadArtifact(Number(id), { path, expectedHash }),
  delete: name => client.deleteArtifact(name),
  'rest-list': () => client.listArtifacts(findBy()),
  'rest-get': name => client.getArtifact(name, findBy()),
  'rest-download': (id, path, expectedHash) => client.downloadArtifact(Number(id), { path, expectedHash, ...findBy() }),
  'rest-delete': name => client.deleteArtifact(name, findBy())
}

const [verb, ...parameters] = process.argv.slice(2)
// The client reports its progress on stdout, where only the outcome belongs.
const print = process.stdout.write.bind(process.stdout)
process.stdout.write = process.stderr.write.bind(process.stderr)

try {
  if (!(verb in verbs)) throw new Error(`unknown verb ${verb}`)
  print(JSON.stringify(await verbs[verb](...parameters)) + '\n')
} catch (error) {
  print(JSON.stringify({ error: error.name, message: error.message }) + '\n')
  process.exitCode = 1
}
