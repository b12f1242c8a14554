//! From a name to a verified model folder: a catalogue of open European models, downloads from a hub that are checked
//! file by file, and bundles that carry them to machines without internet.
//!
//! A download trusts nothing that comes: names are checked before they touch the disk (`listing`), only the files that a
//! decoder needs are taken and pickled ones never (`selection`), each file is compared with the digest that the hub
//! announced before it gets its name (`download`), and the token goes to the hub's own host alone (`client`). The protocol
//! is that of <https://huggingface.co/docs/hub/api>, which mirrors speak as well.
//!
//! The network is behind the cargo feature `remote`, blocking, and without an async runtime; the catalogue and bundles
//! work without it.

pub mod address;
pub mod bundle;
pub mod catalogue;
#[cfg(feature = "remote")]
mod client;
#[cfg(feature = "remote")]
mod content;
#[cfg(feature = "remote")]
mod download;
mod error;
mod folder;
pub mod listing;
#[cfg(feature = "remote")]
mod pull;
pub mod selection;
mod tar;

pub use address::Address;
pub use catalogue::{Catalogue, Model};
#[cfg(feature = "remote")]
pub use client::{DEFAULT_ENDPOINT, Hub, HubSettings};
pub use error::Error;
pub use folder::{SOURCE_FILE, Source, SourceFile};
pub use listing::{Listing, RemoteFile};
#[cfg(feature = "remote")]
pub use pull::{Plan, Pulled, fetch, plan, read_small};
