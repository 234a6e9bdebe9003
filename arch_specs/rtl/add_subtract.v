// The addends of the multiplication-free and the binary-connect operator, for 1, 2 or 4 words in a cycle.
//
//   multiplication-free   sign(x) |w| + sign(w) |x|; words of w are a sign (their highest bit, 1 for -) and a magnitude
//   binary-connect        x or -x; the weight of lane k is w[k], 1 for +1 and 0 for -1
//
// sign(w) |x| is x or -x too. A number is negated by inverting its bits and adding one; the one of lane 0 is left to
// the carry input of the accumulator's adder, the others are added here. The result is addend + carry.
module add_subtract (
    input         [ 7:0] x,
    input         [ 7:0] w,
    input                binary,
    input         [ 1:0] precision,
    input                signed_x,
    output signed [10:0] addend,
    output               carry
);
    wire half = |precision;
    wire quarter = precision[1];

    // A bit for each field of two bits, from the bit at the highest field of its lane.
    function [3:0] of_lane(input [3:0] bits, input [1:0] form);
        of_lane = {bits[3], form[1] ? bits[2] : bits[3], |form ? bits[1] : bits[3],
                   form[1] ? bits[0] : |form ? bits[1] : bits[3]};
    endfunction

    wire [3:0] negative_x = of_lane({x[7], x[5], x[3], x[1]} & {4{signed_x}}, precision);
    wire [3:0] negative_w = of_lane({w[7], w[5], w[3], w[1]}, precision);
    wire [3:0] plus = {quarter ? w[3] : half ? w[1] : w[0], quarter ? w[2] : half ? w[1] : w[0],
                       quarter ? w[1] : w[0], w[0]};

    wire [3:0] any = {|x[7:6], |x[5:4], |x[3:2], |x[1:0]};
    wire [1:0] any_half = {any[3] | any[2], any[1] | any[0]};
    wire any_all = any_half[1] | any_half[0];
    wire [3:0] nonzero = quarter ? any : half ? {{2{any_half[1]}}, {2{any_half[0]}}} : {4{any_all}};

    // x or -x.
    wire [3:0] negate_x = binary ? ~plus : negative_x ^ negative_w;
    wire [7:0] inverted_x = x ^ {{2{negate_x[3]}}, {2{negate_x[2]}}, {2{negate_x[1]}}, {2{negate_x[0]}}};
    wire signed [8:0] sum_x;
    lane_sum #(.FIELD(2)) lanes_x (
        .word(inverted_x), .sign(negate_x ^ negative_x), .precision(precision), .sum(sum_x)
    );

    // |w| with the sign of x, nothing where x is 0.
    wire [3:0] with_magnitude = nonzero & {4{~binary}};
    wire [3:0] negate_w = negative_x & with_magnitude;
    wire [7:0] sign_bits = {1'b1, 1'b0, quarter, 1'b0, half, 1'b0, quarter, 1'b0};
    wire [7:0] magnitude = w & ~sign_bits & {{2{with_magnitude[3]}}, {2{with_magnitude[2]}},
                                             {2{with_magnitude[1]}}, {2{with_magnitude[0]}}};
    wire [7:0] inverted_w = magnitude ^ {{2{negate_w[3]}}, {2{negate_w[2]}}, {2{negate_w[1]}}, {2{negate_w[0]}}};
    wire signed [8:0] sum_w;
    lane_sum #(.FIELD(2)) lanes_w (
        .word(inverted_w), .sign(negate_w), .precision(precision), .sum(sum_w)
    );

    // Fields 0; 0 and 2; or all are the lowest of a lane.
    wire [2:0] ones_x = {2'b0, half & negate_x[2]} + {2'b0, quarter & negate_x[1]} + {2'b0, quarter & negate_x[3]};
    wire [2:0] ones_w = {2'b0, negate_w[0]} + {2'b0, half & negate_w[2]} + {2'b0, quarter & negate_w[1]}
                        + {2'b0, quarter & negate_w[3]};
    wire [3:0] ones = {1'b0, ones_x} + {1'b0, ones_w};

    assign addend = {{2{sum_x[8]}}, sum_x} + {{2{sum_w[8]}}, sum_w} + {7'b0, ones};
    assign carry = negate_x[0];
endmodule
