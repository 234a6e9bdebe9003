// The adder in front of the accumulator: LONG bits, or SHORT bits where `wide` is 0 (paper: 20 and 12).
//
// Without SATURATE sums wrap, and in the short form the upper part sees zeros and does not switch. With
// SATURATE the sum of the accumulator and a cycle's addend is exact, then clipped; the upper part works in both forms.
// LONG must be at least 17. Bits above SHORT of `sum` are 0 in the short form.
module accumulator_adder #(
    parameter LONG = 20,
    parameter SHORT = 12,
    parameter SATURATE = 0
) (
    input         [LONG-1:0] base,
    input  signed [    16:0] addend,
    input                    carry_in,
    input                    wide,
    output        [LONG-1:0] sum
);
    generate
        if (SATURATE == 0) begin : wrap
            wire [LONG-1:0] extended = {{(LONG-17){addend[16]}}, addend};
            wire [SHORT:0] low = base[SHORT-1:0] + extended[SHORT-1:0] + {{(SHORT-1){1'b0}}, carry_in};
            wire [LONG-SHORT-1:0] enable = {(LONG-SHORT){wide}};
            wire carry = wide & low[SHORT];
            assign sum[SHORT-1:0] = low[SHORT-1:0];
            assign sum[LONG-1:SHORT] = (base[LONG-1:SHORT] & enable) + (extended[LONG-1:SHORT] & enable)
                                       + {{(LONG-SHORT-1){1'b0}}, carry};
        end else begin : saturate
            wire sign = wide ? base[LONG-1] : base[SHORT-1];
            wire signed [LONG:0] start = {sign, wide ? base[LONG-1:SHORT] : {(LONG-SHORT){sign}}, base[SHORT-1:0]};
            wire signed [LONG:0] exact = start + $signed({{(LONG-16){addend[16]}}, addend})
                                       + $signed({{LONG{1'b0}}, carry_in});
            wire negative = exact[LONG];
            wire over_long = exact[LONG] ^ exact[LONG-1];
            wire over_short = ~(&exact[LONG:SHORT-1]) & (|exact[LONG:SHORT-1]);
            wire over = wide ? over_long : over_short;
            // The bound is 0111... or 1000..., with the sign in bit LONG - 1 or SHORT - 1.
            wire [LONG-2:0] clipped = over ? {(LONG-1){~negative}} : exact[LONG-2:0];
            assign sum[SHORT-2:0] = clipped[SHORT-2:0];
            assign sum[SHORT-1] = wide ? clipped[SHORT-1] : negative;
            assign sum[LONG-2:SHORT] = clipped[LONG-2:SHORT] & {(LONG-SHORT-1){wide}};
            assign sum[LONG-1] = wide & negative;
        end
    endgenerate
endmodule
