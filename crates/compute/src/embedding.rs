//! Rows of a table by token, and their gradient.

use crate::path::vectorised;

vectorised! {
    /// `output` [tokens, width] ← the tokens' rows of `table` [vocabulary, width].
    pub fn embedding(table: &[f32], width: usize, tokens: &[u32], output: &mut [f32]) {
        for (&token, row) in tokens.iter().zip(output.chunks_exact_mut(width)) {
            row.copy_from_slice(&table[token as usize * width..][..width]);
        }
    }
}

vectorised! {
    /// Adds each token's row to its row of `table_gradient`, in the order of the tokens.
    pub fn embedding_backward(output_gradient: &[f32], width: usize, tokens: &[u32], table_gradient: &mut [f32]) {
        for (&token, row) in tokens.iter().zip(output_gradient.chunks_exact(width)) {
            for (g, &d) in table_gradient[token as usize * width..][..width].iter_mut().zip(row) {
                *g += d;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_up_and_scatters_back() {
        let table = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let mut output = [0.0; 6];
        embedding(&table, 2, &[2, 0, 2], &mut output);
        assert_eq!(output, [5.0, 6.0, 1.0, 2.0, 5.0, 6.0]);
        let mut gradient = [0.0; 6];
        embedding_backward(&[1.0, 2.0, 10.0, 20.0, 100.0, 200.0], 2, &[2, 0, 2], &mut gradient);
        assert_eq!(gradient, [10.0, 20.0, 0.0, 0.0, 101.0, 202.0]);
    }
}
