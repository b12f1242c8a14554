//! How good near-duplicate search is: `cargo run --release -p corpus --example near_duplicates -- [DOCUMENTS] [THREADS]`.
//!
//! Makes documents with planted near-duplicates of all similarities, runs the stage on them, and compares what it dropped
//! with the exact Jaccard similarity of all pairs, computed by other code.

#[path = "../tests/it/pairs.rs"]
mod pairs;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let documents: usize = arguments.next().map_or(Ok(20_000), |text| text.parse())?;
    let threads: usize = arguments.next().map_or(Ok(2), |text| text.parse())?;
    let found = pairs::compare(documents, threads);
    let recall = |missed: usize, pairs: usize| 1.0 - missed as f64 / pairs.max(1) as f64;
    println!("documents                                    {documents:8}");
    println!("pairs at 0.75 or above                       {:8}", found.pairs);
    println!("recall                                       {:8.4}", recall(found.missed, found.pairs));
    println!("pairs from 0.75 to 0.80                      {:8}", found.pairs_at_threshold);
    let at_threshold = recall(found.missed_at_threshold, found.pairs_at_threshold);
    println!("recall                                       {at_threshold:8.4}");
    println!("dropped as near-duplicates                   {:8}", found.dropped);
    println!("merged below the threshold                   {:8}", found.merged_below);
    println!("for one that was dropped itself later        {:8}", found.chained);
    println!("lowest similarity to the one that stays      {:8.4}", found.lowest_merged);
    println!("lowest similarity of two dropped for one     {:8.4}", found.farthest_in_cluster);
    println!("most documents dropped for one               {:8}", found.largest_cluster);
    Ok(())
}
