//! A blob on its way in by way of `ByteStream.Write`: what may come next, and what it becomes. Not here: where the messages come from.

use bazel_remote_apis::google::bytestream::WriteRequest;
use tonic::Status;

use super::refuse;
use super::resource::{Form, Resource};
use crate::cache::Cache;
use crate::cache::compression::{self, Expander};
use crate::cache::store::Incoming;
use crate::proto::digest::Digest;

/// What has come so far.
#[derive(Debug)]
pub(super) struct Upload {
    /// As the first message has it.
    named: String,
    digest: Digest,
    incoming: Incoming,
    expander: Option<Expander>,
    /// Bytes in messages.
    came: u64,
}

impl Upload {
    /// Of what was named in the first message.
    ///
    /// # Errors
    /// If it is larger than what is stored.
    pub(super) fn start(cache: &Cache, resource: &Resource, named: String) -> Result<Self, Status> {
        let (digest, most) = (resource.digest, cache.largest());
        if digest.size > most {
            return Err(refuse(&crate::cache::store::Error::TooLarge { most }));
        }
        let expander = (resource.form == Form::Zstd).then(|| Expander::new(digest.size)).transpose();
        let expander = expander.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Self { named, digest, incoming: cache.incoming(), expander, came: 0 })
    }

    /// The next message; whether it is the last.
    ///
    /// # Errors
    /// If it cannot follow, or there is no room.
    pub(super) fn take(&mut self, message: &WriteRequest) -> Result<bool, Status> {
        if !message.resource_name.is_empty() && message.resource_name != self.named {
            return Err(Status::invalid_argument("a later message names another resource than the first"));
        }
        if u64::try_from(message.write_offset) != Ok(self.came) {
            let (offset, came) = (message.write_offset, self.came);
            return Err(Status::invalid_argument(format!("write_offset is {offset} where {came} bytes have come")));
        }
        self.came += message.data.len() as u64;
        self.write(&message.data)?;
        Ok(message.finish_write)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Status> {
        let incoming = &mut self.incoming;
        match &mut self.expander {
            Some(expander) => expander.write(bytes, |bytes| incoming.write(bytes)).map_err(refuse_compressed),
            None if self.came > self.digest.size => {
                let (came, size) = (self.came, self.digest.size);
                Err(Status::invalid_argument(format!("{came} bytes came of a blob of {size}")))
            }
            None => incoming.write(bytes).map_err(|error| refuse(&error)),
        }
    }

    /// All has come. How many bytes that was, as they travelled.
    ///
    /// # Errors
    /// If it is not what was named, or there is no room.
    pub(super) fn finish(self) -> Result<u64, Status> {
        if let Some(expander) = &self.expander {
            expander.finish().map_err(refuse_compressed)?;
        }
        self.incoming.finish(Some(&self.digest)).map_err(|error| refuse(&error))?;
        Ok(self.came)
    }
}

/// Why compressed bytes are not stored.
pub(super) fn refuse_compressed(error: compression::Error<crate::cache::store::Error>) -> Status {
    match error {
        compression::Error::Sink(error) => refuse(&error),
        error => Status::invalid_argument(error.to_string()),
    }
}
