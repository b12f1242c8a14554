//! Additions and scalings of whole slices.

use crate::path::vectorised;

vectorised! {
    /// y ← y + x
    pub fn add(y: &mut [f32], x: &[f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }
}

vectorised! {
    /// x ← x · factor
    pub fn scale(x: &mut [f32], factor: f32) {
        for x in x.iter_mut() {
            *x *= factor;
        }
    }
}

vectorised! {
    /// Adds `bias` to every row of `x`.
    pub fn add_bias(x: &mut [f32], bias: &[f32]) {
        for row in x.chunks_exact_mut(bias.len()) {
            for (x, &b) in row.iter_mut().zip(bias) {
                *x += b;
            }
        }
    }
}

vectorised! {
    /// Adds every row of `output_gradient` to `bias_gradient`, in order.
    pub fn add_bias_backward(output_gradient: &[f32], bias_gradient: &mut [f32]) {
        for row in output_gradient.chunks_exact(bias_gradient.len()) {
            for (g, &d) in bias_gradient.iter_mut().zip(row) {
                *g += d;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bias_goes_to_every_row_and_comes_back_summed() {
        let mut x = [1.0, 2.0, 3.0, 4.0];
        add_bias(&mut x, &[10.0, 20.0]);
        assert_eq!(x, [11.0, 22.0, 13.0, 24.0]);
        let mut gradient = [1.0, 0.0];
        add_bias_backward(&x, &mut gradient);
        assert_eq!(gradient, [25.0, 46.0]);
        add(&mut x, &[1.0; 4]);
        scale(&mut x, 2.0);
        assert_eq!(x, [24.0, 46.0, 28.0, 50.0]);
    }
}
