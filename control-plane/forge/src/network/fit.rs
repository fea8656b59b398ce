//! What a network takes of a board, and how wide it may be for it.

use super::{Network, latency};
use crate::{
    genotype::Architecture,
    graph::{self, Graph},
    quantise,
    seeds::{self, Purpose},
};
use shared::board::Board;

/// Channels that a network's first stage must have at least.
const CHANNELS_MIN: usize = 4;

/// Why no network fits a board.
#[derive(Debug, thiserror::Error)]
pub enum FitError {
    /// Even the narrowest network breaks a limit.
    #[error(
        "board {board} allows {limit} = {allowed}, and even the narrowest form of the found network needs {needed}: \
         raise the limit in the board's file or lower the budget's cells or nodes"
    )]
    TooLarge {
        /// The board's id.
        board: String,
        /// The limit's key in the board's file.
        limit: &'static str,
        /// Its value.
        allowed: u64,
        /// What the network needs.
        needed: u64,
    },
    /// Even the narrowest network is more than can be exported.
    #[error(
        "even the narrowest form of the found network is too large to be exported: lower the budget's cells or nodes"
    )]
    Export(#[source] graph::Error),
    /// The network cannot be laid out at all.
    #[error("the found network cannot be laid out: {0}")]
    Layout(String),
}

/// What stands in the way of a network on a board.
enum Obstacle {
    Board(BrokenLimit),
    Export(graph::Error),
}

/// A limit of a board's file: its key, what it allows, what the network needs.
pub type BrokenLimit = (&'static str, u64, u64);

impl Architecture {
    /// The widest form of this architecture, at most as wide as it is, that keeps the board's limits. Where it is made
    /// narrower, its channels fill the vectors of the board's processor.
    ///
    /// # Errors
    /// [`FitError`] if none does.
    pub fn fit(mut self, board: &Board) -> Result<Self, FitError> {
        while let Some(obstacle) = self.obstacle(board)? {
            if self.channels <= CHANNELS_MIN {
                return Err(match obstacle {
                    Obstacle::Board((limit, allowed, needed)) => {
                        FitError::TooLarge { board: board.id.to_string(), limit, allowed, needed }
                    }
                    Obstacle::Export(error) => FitError::Export(error),
                });
            }
            self.channels = narrower(self.channels, latency::lanes(board) as usize);
        }
        Ok(self)
    }

    fn obstacle(&self, board: &Board) -> Result<Option<Obstacle>, FitError> {
        // Known without building it: a network far too wide would not fit into memory either.
        let (allowed, needed) = (board.limits.weight_bytes_max, self.weights());
        if needed > allowed {
            return Ok(Some(Obstacle::Board((WEIGHT_BYTES, allowed, needed))));
        }
        match self.graph() {
            Ok(graph) => Ok(broken_limit(&graph, board).map(Obstacle::Board)),
            Err(error @ graph::Error::TooLarge { .. }) => Ok(Some(Obstacle::Export(error))),
            Err(error) => Err(FitError::Layout(error.to_string())),
        }
    }

    /// The graph of this architecture, with random weights.
    fn graph(&self) -> Result<Graph, graph::Error> {
        if self.weights() > graph::MAX_PARAMETERS as u64 {
            let found = usize::try_from(self.weights()).unwrap_or(usize::MAX);
            return Err(graph::Error::TooLarge { what: "parameters", found, limit: graph::MAX_PARAMETERS });
        }
        let mut rng = seeds::stream(0, Purpose::NetworkWeights, 0);
        Network::new(self.clone(), &mut rng).map_err(graph::Error::NotAClassifier)?.to_graph()
    }
}

/// The next width below `channels`: about an eighth less, in whole vectors where there are more than two.
fn narrower(channels: usize, lanes: usize) -> usize {
    let less = channels - (channels / 8).max(1);
    let whole = less - less % lanes.max(1);
    if whole > 2 * lanes { whole } else { less.max(CHANNELS_MIN) }
}

const WEIGHT_BYTES: &str = "limits.weight_bytes_max";

/// Every limit of a board with what it allows and what the graph needs.
fn limits(graph: &Graph, board: &Board) -> [BrokenLimit; 5] {
    let (limits, us) = (&board.limits, latency::estimate_us(graph, board));
    let energy = board.energy_uj(us as f64).zip(limits.energy_uj_max);
    let (energy, energy_max) =
        energy.map_or((0, u64::MAX), |(needed, allowed)| (needed.ceil() as u64, allowed));
    [
        (WEIGHT_BYTES, limits.weight_bytes_max, quantise::weight_bytes(graph) as u64),
        ("limits.activation_bytes_max", limits.activation_bytes_max, graph.peak_activation_bytes() as u64),
        ("limits.macs_max", limits.macs_max, graph.macs()),
        ("limits.latency_us_max", limits.latency_us_max, us),
        ("limits.energy_uj_max", energy_max, energy),
    ]
}

/// The first limit that the graph breaks. Its latency is estimated ([`latency::estimate_us`]).
pub fn broken_limit(graph: &Graph, board: &Board) -> Option<BrokenLimit> {
    limits(graph, board).into_iter().find(|(_, allowed, needed)| needed > allowed)
}

/// Bytes of the INT8 weights of a network of this architecture, and the estimated microseconds of one inference.
///
/// # Errors
/// A sentence, if it cannot be laid out, or is more than can be exported.
pub fn cost_on(architecture: &Architecture, board: &Board) -> Result<(u64, u64), String> {
    let graph = architecture.graph().map_err(|error| error.to_string())?;
    Ok((quantise::weight_bytes(&graph) as u64, latency::estimate_us(&graph, board)))
}

/// The largest share of any of the board's limits that a network of this architecture takes; over 1 it does not fit,
/// infinite if it is more than can be exported.
///
/// # Errors
/// A sentence, if it cannot be laid out.
pub fn load_on(architecture: &Architecture, board: &Board) -> Result<f64, String> {
    match architecture.graph() {
        Ok(graph) => {
            let share = |(_, allowed, needed): BrokenLimit| needed as f64 / allowed.max(1) as f64;
            Ok(limits(&graph, board).map(share).into_iter().fold(0.0, f64::max))
        }
        Err(graph::Error::TooLarge { .. }) => Ok(f64::INFINITY),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_width_goes_down_by_whole_vectors_and_near_the_end_by_single_channels() {
        let down = |lanes| {
            let mut widths = vec![40];
            while let Some(&width) = widths.last().filter(|width| **width > CHANNELS_MIN) {
                widths.push(narrower(width, lanes));
            }
            widths
        };
        assert_eq!(down(8), [40, 32, 24, 21, 19, 17, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4]);
        assert_eq!(down(4)[..6], [40, 32, 28, 24, 20, 16]);
        assert_eq!(down(1)[..4], [40, 35, 31, 28]);
    }
}
