//! A mixture of experts (DeepSeek-V3, arXiv 2412.19437, section 2.1.2): each token goes to the few experts with the best
//! scores, and their outputs come back weighted. No expert has a capacity, so no token is dropped and nothing is padded.
//!
//! A token's choice and weights depend on its own logits alone, and it adds up its experts in the order of their numbers:
//! so its bits depend neither on the tokens beside it nor on who runs which expert. [`group`] sorts (token, expert) pairs
//! by expert, stably; between [`gather`] and [`combine`] each expert is a plain product over its stretch of rows.
//!
//! Experts are kept equally busy without a loss of their own: [`balance`] moves a bias that counts only in the choice
//! (arXiv 2408.15664).

use crate::elementary::{exp, ln, sigmoid};
use crate::lanes::{dot, maximum};
use crate::path::vectorised;

/// From a router's logits to scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scoring {
    /// Each expert for itself.
    Sigmoid,
    /// Over all experts.
    Softmax,
}

/// How tokens choose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Routing {
    /// E, a multiple of `groups`.
    pub experts: usize,
    /// k: how many experts a token passes.
    pub chosen: usize,
    /// From logits to scores.
    pub scoring: Scoring,
    /// Experts stand in groups of equal size; 1 for none.
    pub groups: usize,
    /// A token chooses among the experts of this many groups, those whose two best experts have the best sum.
    pub active_groups: usize,
    /// Whether a token's weights are divided by their sum.
    pub normalise: bool,
    /// Factor of the weights.
    pub scale: f32,
}

/// What transformers adds to the sum of a token's scores, against a division by zero.
const SMALLEST_SUM: f32 = 1e-20;

vectorised! {
    /// Scores every expert into `scores` [tokens, E], chooses by score + bias into `chosen` [tokens, k] (ascending; the
    /// lower number where two are equal), and weighs the choice by the scores alone into `weights` [tokens, k].
    pub fn route(
        routing: &Routing,
        logits: &[f32],
        bias: &[f32],
        scores: &mut [f32],
        chosen: &mut [u32],
        weights: &mut [f32],
    ) {
        let Routing { experts, chosen: k, .. } = *routing;
        let rows = logits.chunks_exact(experts).zip(scores.chunks_exact_mut(experts));
        let choices = chosen.chunks_exact_mut(k).zip(weights.chunks_exact_mut(k));
        for ((logits, scores), (chosen, weights)) in rows.zip(choices) {
            score(routing.scoring, logits, scores);
            choose(routing, scores, bias, chosen);
            let mut sum = 0.0f32;
            for (weight, &expert) in weights.iter_mut().zip(chosen.iter()) {
                *weight = scores[expert as usize];
                sum += *weight;
            }
            let factor = if routing.normalise { routing.scale / (sum + SMALLEST_SUM) } else { routing.scale };
            for weight in weights.iter_mut() {
                *weight *= factor;
            }
        }
    }
}

vectorised! {
    /// The gradient by the logits into `logit_gradient` [tokens, E], from the one by the weights, which stands at each pair's
    /// place. The choice has none.
    pub fn route_backward(
        routing: &Routing,
        scores: &[f32],
        chosen: &[u32],
        places: &[u32],
        weight_gradient: &[f32],
        logit_gradient: &mut [f32],
    ) {
        let Routing { experts, chosen: k, .. } = *routing;
        let rows = scores.chunks_exact(experts).zip(logit_gradient.chunks_exact_mut(experts));
        let choices = chosen.chunks_exact(k).zip(places.chunks_exact(k));
        for ((scores, gradient), (chosen, places)) in rows.zip(choices) {
            // first by the scores
            let (mut sum, mut pull) = (0.0f32, 0.0f32);
            for (&expert, &place) in chosen.iter().zip(places) {
                let score = scores[expert as usize];
                sum += score;
                pull = weight_gradient[place as usize].mul_add(score, pull);
            }
            let (factor, pull) = match routing.normalise {
                true => (routing.scale / (sum + SMALLEST_SUM), pull / (sum + SMALLEST_SUM)),
                false => (routing.scale, 0.0),
            };
            gradient.fill(0.0);
            match routing.scoring {
                Scoring::Sigmoid => {
                    for (&expert, &place) in chosen.iter().zip(places) {
                        let (score, dw) = (scores[expert as usize], weight_gradient[place as usize]);
                        gradient[expert as usize] = factor * (dw - pull) * (score * (1.0 - score));
                    }
                }
                Scoring::Softmax => {
                    let mut mean = 0.0f32;
                    for (&expert, &place) in chosen.iter().zip(places) {
                        let by_score = factor * (weight_gradient[place as usize] - pull);
                        gradient[expert as usize] = by_score;
                        mean = by_score.mul_add(scores[expert as usize], mean);
                    }
                    for (g, &score) in gradient.iter_mut().zip(scores) {
                        *g = score * (*g - mean);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn score(scoring: Scoring, logits: &[f32], scores: &mut [f32]) {
    match scoring {
        Scoring::Sigmoid => {
            for (score, &logit) in scores.iter_mut().zip(logits) {
                *score = sigmoid(logit);
            }
        }
        Scoring::Softmax => {
            let (_, sum) = exponentials(logits, scores);
            let reciprocal = 1.0 / sum;
            for score in scores.iter_mut() {
                *score *= reciprocal;
            }
        }
    }
}

/// e^(logit − largest); the largest, and the sum in the order of the experts.
#[inline(always)]
fn exponentials(logits: &[f32], weights: &mut [f32]) -> (f32, f32) {
    let largest = maximum(logits);
    for (weight, &logit) in weights.iter_mut().zip(logits) {
        *weight = exp(logit - largest);
    }
    (largest, weights.iter().sum())
}

/// The best k by score + bias, ascending by number.
#[inline(always)]
fn choose(routing: &Routing, scores: &[f32], bias: &[f32], chosen: &mut [u32]) {
    let size = routing.experts / routing.groups;
    let value = |expert: usize| scores[expert] + bias[expert];
    let mut count = 0;
    for group in 0..routing.groups {
        if routing.active_groups < routing.groups
            && rank_of_group(group, routing.groups, size, value) >= routing.active_groups
        {
            continue;
        }
        for expert in group * size..(group + 1) * size {
            // Scores that are no numbers (a run that has broken down) compare with nothing and stay where they are.
            let mut place = count;
            while place > 0 && value(expert) > value(chosen[place - 1] as usize) {
                place -= 1;
            }
            if place < chosen.len() {
                count = chosen.len().min(count + 1);
                chosen.copy_within(place..count - 1, place + 1);
                chosen[place] = expert as u32;
            }
        }
    }
    chosen.sort_unstable();
}

/// How many groups stand before this one: by the sum of the two best, then by number.
#[inline(always)]
fn rank_of_group(group: usize, groups: usize, size: usize, value: impl Fn(usize) -> f32 + Copy) -> usize {
    let own = two_best(group * size, size, value);
    let stands_before = |other: usize| {
        let theirs = two_best(other * size, size, value);
        theirs > own || (theirs == own && other < group)
    };
    (0..groups).filter(|&other| stands_before(other)).count()
}

#[inline(always)]
fn two_best(first: usize, size: usize, value: impl Fn(usize) -> f32) -> f32 {
    let (mut best, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    for expert in first..first + size {
        let value = value(expert);
        if value > best {
            (best, second) = (value, best);
        } else if value > second {
            second = value;
        }
    }
    best + second
}

/// Sorts the pairs of `chosen` [tokens, k] by expert, each expert's by token. Pairs are numbered token · k + rank: `pairs`
/// ← the pair at each sorted place, `places` ← the sorted place of each pair, `offsets` [E + 1] ← where each expert's
/// stretch begins.
///
/// # Panics
/// When an expert's number is out of range, or a slice too short.
pub fn group(chosen: &[u32], offsets: &mut [u32], pairs: &mut [u32], places: &mut [u32]) {
    offsets.fill(0);
    for &expert in chosen {
        offsets[expert as usize + 1] += 1;
    }
    for expert in 1..offsets.len() {
        offsets[expert] += offsets[expert - 1];
    }
    for (pair, &expert) in chosen.iter().enumerate() {
        let place = offsets[expert as usize];
        offsets[expert as usize] += 1;
        pairs[place as usize] = pair as u32;
        places[pair] = place;
    }
    // Each has moved to where the next begins.
    offsets.copy_within(..offsets.len() - 1, 1);
    offsets[0] = 0;
}

/// `output` [pairs, width] ← the row of x [tokens, width] that belongs to each pair.
pub fn gather(x: &[f32], width: usize, k: usize, pairs: &[u32], output: &mut [f32]) {
    for (row, &pair) in output.chunks_exact_mut(width).zip(pairs) {
        row.copy_from_slice(&x[pair as usize / k * width..][..width]);
    }
}

vectorised! {
    /// Adds the rows of its pairs to each row of x: the backward of `gather`.
    pub fn gather_backward(gathered: &[f32], width: usize, k: usize, places: &[u32], x_gradient: &mut [f32]) {
        for (row, places) in x_gradient.chunks_exact_mut(width).zip(places.chunks_exact(k)) {
            for &place in places {
                for (x, &g) in row.iter_mut().zip(&gathered[place as usize * width..][..width]) {
                    *x += g;
                }
            }
        }
    }
}

vectorised! {
    /// Adds to each row of y [tokens, width] the weighted sum of its pairs' rows of `outputs` [pairs, width].
    pub fn combine(outputs: &[f32], width: usize, k: usize, places: &[u32], weights: &[f32], y: &mut [f32]) {
        let choices = places.chunks_exact(k).zip(weights.chunks_exact(k));
        for (row, (places, weights)) in y.chunks_exact_mut(width).zip(choices) {
            for (&place, &weight) in places.iter().zip(weights) {
                for (y, &x) in row.iter_mut().zip(&outputs[place as usize * width..][..width]) {
                    *y = weight.mul_add(x, *y);
                }
            }
        }
    }
}

vectorised! {
    /// From unweighted gradients to weighted ones, for pairs in sorted order. With y = Σ w·D·a of a token's experts, `back`
    /// holds Dᵀ·dy of each pair [pairs, inner] and `gathered` dy [pairs, width]: then dw = a·Dᵀdy, which needs no output of
    /// an expert, into `weight_gradient` (in the same order), and both are multiplied by the pair's weight.
    pub fn weigh_backward(
        activated: &[f32],
        inner: usize,
        width: usize,
        pairs: &[u32],
        weights: &[f32],
        back: &mut [f32],
        gathered: &mut [f32],
        weight_gradient: &mut [f32],
    ) {
        let rows = activated.chunks_exact(inner).zip(back.chunks_exact_mut(inner));
        let pairs = pairs.iter().zip(weight_gradient);
        for (((a, back), gathered), (&pair, dw)) in rows.zip(gathered.chunks_exact_mut(width)).zip(pairs) {
            let weight = weights[pair as usize];
            *dw = dot(a, back);
            for value in back.iter_mut() {
                *value *= weight;
            }
            for value in gathered.iter_mut() {
                *value *= weight;
            }
        }
    }
}

/// Σ (ln Σ e^logit)² over the tokens: the router's z-loss (Zoph et al., arXiv 2202.08906), which keeps logits small.
pub fn z_loss(logits: &[f32], experts: usize) -> f64 {
    let mut weights = vec![0.0; experts];
    logits.chunks_exact(experts).map(|row| log_sum(row, &mut weights).powi(2)).sum()
}

/// Adds `factor` times the gradient of the z-loss to `logit_gradient`.
pub fn z_loss_backward(logits: &[f32], experts: usize, factor: f32, logit_gradient: &mut [f32]) {
    let mut weights = vec![0.0; experts];
    for (row, gradient) in logits.chunks_exact(experts).zip(logit_gradient.chunks_exact_mut(experts)) {
        let log_sum = log_sum(row, &mut weights);
        let sum: f32 = weights.iter().sum();
        let factor = factor * (2.0 * log_sum) as f32 / sum;
        for (g, &weight) in gradient.iter_mut().zip(&weights) {
            *g = factor.mul_add(weight, *g);
        }
    }
}

fn log_sum(logits: &[f32], weights: &mut [f32]) -> f64 {
    let (largest, sum) = exponentials(logits, weights);
    largest as f64 + ln(sum as f64)
}

/// Moves the bias of each expert by `rate` towards equal loads (arXiv 2408.15664): up where it had fewer tokens than the
/// mean, down where it had more.
pub fn balance(bias: &mut [f32], loads: &[u64], rate: f32) {
    let total: u128 = loads.iter().map(|&load| load as u128).sum();
    for (bias, &load) in bias.iter_mut().zip(loads) {
        match (load as u128 * loads.len() as u128).cmp(&total) {
            std::cmp::Ordering::Less => *bias += rate,
            std::cmp::Ordering::Equal => {}
            std::cmp::Ordering::Greater => *bias -= rate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, normal_numbers, same_on_every_path, weighted_sum};

    const TOKENS: usize = 37;

    fn routings() -> Vec<Routing> {
        let mut all = Vec::new();
        for scoring in [Scoring::Sigmoid, Scoring::Softmax] {
            for (groups, active_groups) in [(1, 1), (4, 2), (2, 2)] {
                for normalise in [true, false] {
                    let (experts, chosen, scale) = (12, 3, 1.7);
                    all.push(Routing { experts, chosen, scoring, groups, active_groups, normalise, scale });
                }
            }
        }
        all
    }

    #[derive(Clone, Debug, PartialEq)]
    struct Routed {
        scores: Vec<f32>,
        chosen: Vec<u32>,
        weights: Vec<f32>,
    }

    fn run(routing: &Routing, logits: &[f32], bias: &[f32]) -> Routed {
        let tokens = logits.len() / routing.experts;
        let pairs = tokens * routing.chosen;
        let mut routed =
            Routed { scores: vec![0.0; logits.len()], chosen: vec![0; pairs], weights: vec![0.0; pairs] };
        route(routing, logits, bias, &mut routed.scores, &mut routed.chosen, &mut routed.weights);
        routed
    }

    /// The definition, by sorting, in double precision.
    fn plain(routing: &Routing, logits: &[f32], bias: &[f32]) -> (Vec<usize>, Vec<f64>) {
        let exponentials: Vec<f64> = logits.iter().map(|&l| (l as f64).exp()).collect();
        let sum: f64 = exponentials.iter().sum();
        let scores: Vec<f64> = match routing.scoring {
            Scoring::Sigmoid => exponentials.iter().map(|e| e / (1.0 + e)).collect(),
            Scoring::Softmax => exponentials.iter().map(|e| e / sum).collect(),
        };
        let value = |expert: usize| scores[expert] + bias[expert] as f64;
        let descending = |of: &dyn Fn(usize) -> f64, mut items: Vec<usize>| {
            items.sort_by(|&a, &b| of(b).total_cmp(&of(a)));
            items
        };
        let size = routing.experts / routing.groups;
        let members = |group: usize| (group * size..(group + 1) * size).collect::<Vec<_>>();
        let of_group = |group: usize| {
            descending(&value, members(group))[..2].iter().map(|&expert| value(expert)).sum::<f64>()
        };
        let groups = descending(&of_group, (0..routing.groups).collect());
        let among = groups[..routing.active_groups].iter().flat_map(|&group| members(group)).collect();
        let mut chosen = descending(&value, among)[..routing.chosen].to_vec();
        chosen.sort_unstable();
        let sum: f64 =
            if routing.normalise { chosen.iter().map(|&expert| scores[expert]).sum() } else { 1.0 };
        let weights = chosen.iter().map(|&expert| scores[expert] / sum * routing.scale as f64).collect();
        (chosen, weights)
    }

    #[test]
    fn tokens_go_where_the_definition_sends_them() {
        for routing in routings() {
            let logits = normal_numbers(1, TOKENS * routing.experts);
            let bias: Vec<f32> = normal_numbers(2, routing.experts).iter().map(|b| 0.1 * b).collect();
            let routed = run(&routing, &logits, &bias);
            for token in 0..TOKENS {
                let row = &logits[token * routing.experts..][..routing.experts];
                let (chosen, weights) = plain(&routing, row, &bias);
                let pairs = token * routing.chosen..(token + 1) * routing.chosen;
                let found: Vec<usize> = routed.chosen[pairs.clone()].iter().map(|&e| e as usize).collect();
                assert_eq!(found, chosen, "{routing:?}, token {token}");
                for (found, expected) in routed.weights[pairs].iter().zip(weights) {
                    assert!((*found as f64 - expected).abs() < 1e-6, "{routing:?}: {found} and {expected}");
                }
                // company does not matter
                let alone = run(&routing, row, &bias);
                assert_eq!(alone.weights, routed.weights[token * routing.chosen..][..routing.chosen]);
            }
            same_on_every_path(|| run(&routing, &logits, &bias));
        }
    }

    #[test]
    fn the_lower_number_wins_a_tie_and_broken_numbers_still_choose() {
        let mut routing = routings()[0];
        assert_eq!(run(&routing, &[0.5; 12], &[0.0; 12]).chosen, [0, 1, 2]);
        (routing.groups, routing.active_groups) = (4, 1);
        assert_eq!(run(&routing, &[0.5; 12], &[0.0; 12]).chosen, [0, 1, 2]);
        let mut logits = [0.5; 12];
        logits[7] = 0.6;
        assert_eq!(run(&routing, &logits, &[0.0; 12]).chosen, [6, 7, 8]);
        for routing in routings() {
            let chosen = run(&routing, &[f32::NAN; 12], &[0.0; 12]).chosen;
            assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]) && chosen[2] < 12, "{chosen:?}");
        }
    }

    #[test]
    fn routing_gradients_agree_with_finite_differences() {
        for routing in routings() {
            // Far from a change of the choice, where the weights have no derivative: the bias decides it.
            let logits = normal_numbers(1, 5 * routing.experts);
            let bias: Vec<f32> = (0..routing.experts).map(|expert| (expert * 5 % 12) as f32).collect();
            let dw = normal_numbers(3, 5 * routing.chosen);
            let backward = || {
                let routed = run(&routing, &logits, &bias);
                let mut gradient = vec![9.0; logits.len()];
                let places: Vec<u32> = (0..dw.len() as u32).collect();
                route_backward(&routing, &routed.scores, &routed.chosen, &places, &dw, &mut gradient);
                gradient
            };
            check_gradient(&format!("{routing:?}"), &logits, &backward(), |logits| {
                weighted_sum(&run(&routing, logits, &bias).weights, &dw)
            });
            same_on_every_path(backward);
        }
    }

    /// Experts that are plain matrices: everything between the router's weights and the output.
    struct Layer {
        width: usize,
        inner: usize,
        k: usize,
        experts: usize,
        chosen: Vec<u32>,
    }

    impl Layer {
        fn grouped(&self) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
            let pairs = self.chosen.len();
            let mut result = (vec![0; self.experts + 1], vec![0; pairs], vec![0; pairs]);
            group(&self.chosen, &mut result.0, &mut result.1, &mut result.2);
            result
        }

        /// y = Σ w · D·a with a = x's first `inner` elements.
        fn forward(&self, x: &[f32], down: &[f32], weights: &[f32]) -> (Vec<f32>, Vec<f32>) {
            let (offsets, pairs, places) = self.grouped();
            let mut rows = vec![0.0; pairs.len() * self.width];
            gather(x, self.width, self.k, &pairs, &mut rows);
            let activated: Vec<f32> =
                rows.chunks_exact(self.width).flat_map(|row| row[..self.inner].to_vec()).collect();
            let mut outputs = vec![0.0; pairs.len() * self.width];
            for expert in 0..self.experts {
                for place in offsets[expert] as usize..offsets[expert + 1] as usize {
                    for column in 0..self.width {
                        let w = &down[(expert * self.width + column) * self.inner..][..self.inner];
                        outputs[place * self.width + column] =
                            dot(w, &activated[place * self.inner..][..self.inner]);
                    }
                }
            }
            let mut y = vec![0.0; x.len()];
            combine(&outputs, self.width, self.k, &places, weights, &mut y);
            (y, activated)
        }
    }

    #[test]
    fn pairs_are_sorted_by_expert_and_come_back() {
        let layer = Layer { width: 1, inner: 1, k: 2, experts: 4, chosen: vec![0, 3, 0, 1, 1, 3, 0, 3] };
        let (offsets, pairs, places) = layer.grouped();
        assert_eq!(offsets, [0, 3, 5, 5, 8]);
        assert_eq!(pairs, [0, 2, 6, 3, 4, 1, 5, 7]);
        assert!(places.iter().enumerate().all(|(pair, &place)| pairs[place as usize] == pair as u32));
        let mut rows = [0.0; 8];
        gather(&[10.0, 11.0, 12.0, 13.0], 1, 2, &pairs, &mut rows);
        assert_eq!(rows, [10.0, 11.0, 13.0, 11.0, 12.0, 10.0, 12.0, 13.0]);
        let mut y = [1.0; 4];
        combine(&rows, 1, 2, &places, &[0.5, 1.0, 2.0, 3.0, 0.0, 1.0, 1.0, 1.0], &mut y);
        assert_eq!(y, [16.0, 56.0, 13.0, 27.0]);
    }

    #[test]
    fn gradients_through_the_experts_agree_with_finite_differences() {
        let (tokens, width, inner, k, experts) = (6, 21, 17, 2, 4);
        let chosen = vec![0, 3, 1, 3, 0, 1, 0, 3, 0, 3, 1, 3];
        let layer = Layer { width, inner, k, experts, chosen };
        let (x, down, weights, dy) = (
            normal_numbers(1, tokens * width),
            normal_numbers(2, experts * width * inner),
            normal_numbers(3, tokens * k),
            normal_numbers(4, tokens * width),
        );
        let backward = || {
            let (offsets, pairs, places) = layer.grouped();
            let (_, activated) = layer.forward(&x, &down, &weights);
            let mut gathered = vec![0.0; pairs.len() * width];
            gather(&dy, width, k, &pairs, &mut gathered);
            let mut back = vec![0.0; pairs.len() * inner];
            let expert_of = |place: usize| (0..experts).find(|e| place < offsets[e + 1] as usize).unwrap();
            for place in 0..pairs.len() {
                for column in 0..width {
                    for i in 0..inner {
                        back[place * inner + i] += gathered[place * width + column]
                            * down[(expert_of(place) * width + column) * inner + i];
                    }
                }
            }
            let mut sorted = vec![0.0; tokens * k];
            weigh_backward(&activated, inner, width, &pairs, &weights, &mut back, &mut gathered, &mut sorted);
            let dw: Vec<f32> = places.iter().map(|&place| sorted[place as usize]).collect();
            let mut d_down = vec![0.0; down.len()];
            let mut d_rows = vec![0.0; pairs.len() * width];
            for place in 0..pairs.len() {
                d_rows[place * width..][..inner].copy_from_slice(&back[place * inner..][..inner]);
                for column in 0..width {
                    for i in 0..inner {
                        d_down[(expert_of(place) * width + column) * inner + i] +=
                            gathered[place * width + column] * activated[place * inner + i];
                    }
                }
            }
            let mut dx = vec![0.0; x.len()];
            gather_backward(&d_rows, width, k, &places, &mut dx);
            (dx, dw, d_down)
        };
        let (dx, dw, d_down) = backward();
        check_gradient("x", &x, &dx, |x| weighted_sum(&layer.forward(x, &down, &weights).0, &dy));
        check_gradient("weights", &weights, &dw, |w| weighted_sum(&layer.forward(&x, &down, w).0, &dy));
        check_gradient("down", &down, &d_down, |d| weighted_sum(&layer.forward(&x, d, &weights).0, &dy));
        same_on_every_path(backward);
    }

    #[test]
    fn the_z_loss_follows_its_formula_and_finite_differences() {
        let logits = normal_numbers(5, 3 * 7);
        let expected: f64 = logits
            .chunks_exact(7)
            .map(|row| row.iter().map(|&l| (l as f64).exp()).sum::<f64>().ln().powi(2))
            .sum();
        assert!((z_loss(&logits, 7) - expected).abs() < 1e-5);
        let mut gradient = vec![0.0; logits.len()];
        z_loss_backward(&logits, 7, 0.5, &mut gradient);
        check_gradient("logits", &logits, &gradient, |logits| 0.5 * z_loss(logits, 7));
    }

    #[test]
    fn the_bias_moves_against_the_load() {
        let mut bias = [0.0, 0.5, -1.0, 0.0];
        balance(&mut bias, &[5, 9, 1, 5], 0.25);
        assert_eq!(bias, [0.0, 0.25, -0.75, 0.0]);
        balance(&mut bias, &[0; 4], 0.25);
        assert_eq!(bias, [0.0, 0.25, -0.75, 0.0]);
    }
}
