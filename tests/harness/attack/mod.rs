//! Attacks on the whole program, and what judges them: loads that know exactly what was acknowledged as
//! durable, and a killer of the daemon under them.

pub mod fio;
pub mod kill;
pub mod ledger;
pub mod random;
pub mod records;
pub mod rounds;
pub mod sealed;
pub mod writers;
