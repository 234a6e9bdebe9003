// What mac_core.v computes, written with the operators of the language: the specification of its proof (docs/rtl.md).
//
// Ports, parameters and registers are those of mac_core.v. ISOLATE changes nothing that can be seen.
module mac_core_specification #(
    parameter LONG = 20,
    parameter SHORT = 12,
    parameter SATURATE = 0,
    parameter ZERO_SKIP = 1,
    parameter ISOLATE = 1
) (
    input                 clk,
    input                 reset,
    input      [     1:0] operation,
    input      [     1:0] precision,
    input                 signed_x,
    input                 wide,
    input                 valid,
    input                 first,
    input      [     7:0] x,
    input      [     7:0] w,
    output reg [LONG-1:0] acc
);
    localparam WIDTH = LONG + 2;
    localparam signed [WIDTH-1:0] ONE = 1;

    reg run, start, typical_r, binary_r, signed_r, wide_r;
    reg [1:0] precision_r;
    reg [7:0] x_r, w_r;

    // What one word of x and one of w add; `bits` is 8, 4 or 2, words stand in the lowest bits.
    function signed [WIDTH-1:0] term(input [7:0] x, input [7:0] w, input plus, input integer bits, input typical,
                                     input binary, input is_signed);
        reg signed [9:0] value, weight, magnitude;
        begin
            value = is_signed & x[bits-1] ? $signed({2'b0, x}) - (10'sd1 <<< bits) : $signed({2'b0, x});
            weight = w[bits-1] ? $signed({2'b0, w}) - (10'sd1 <<< bits) : $signed({2'b0, w});
            magnitude = w[bits-1] ? $signed({2'b0, w}) - (10'sd1 <<< (bits - 1)) : $signed({2'b0, w});
            if (typical) term = value * weight;
            else if (binary) term = plus ? value : -value;
            else if (value == 0) term = 0;
            else term = (value < 0 ? -magnitude : magnitude) + (w[bits-1] ^ (value < 0) ? -value : value);
        end
    endfunction

    integer k;
    reg signed [WIDTH-1:0] addend, exact, high, low;
    reg [LONG-1:0] base;
    reg [LONG-1:0] next;
    always @* begin
        addend = 0;
        if (precision_r == 0) addend = term(x_r, w_r, w_r[0], 8, typical_r, binary_r, signed_r);
        else if (precision_r[1])
            for (k = 0; k < 4; k = k + 1)
                addend = addend + term({6'b0, x_r[2*k+:2]}, {6'b0, w_r[2*k+:2]}, w_r[k], 2, typical_r, binary_r, signed_r);
        else
            for (k = 0; k < 2; k = k + 1)
                addend = addend + term({4'b0, x_r[4*k+:4]}, {4'b0, w_r[4*k+:4]}, w_r[k], 4, typical_r, binary_r, signed_r);
        base = start ? {LONG{1'b0}} : acc;
        high = (ONE <<< ((wide_r ? LONG : SHORT) - 1)) - 1;
        low = ~high;
        exact = (wide_r ? {{2{base[LONG-1]}}, base} : {{(WIDTH-SHORT){base[SHORT-1]}}, base[SHORT-1:0]}) + addend;
        if (SATURATE != 0) exact = exact > high ? high : exact < low ? low : exact;
        next = wide_r ? exact[LONG-1:0] : {{(LONG-SHORT){1'b0}}, exact[SHORT-1:0]};
    end

    wire load = valid & ~((ZERO_SKIP != 0) & (x == 8'b0));
    always @(posedge clk) begin
        run <= load & ~reset;
        start <= valid & first & ~reset;
        if (load) begin
            typical_r <= operation == 2'd0;
            binary_r <= operation == 2'd2;
            precision_r <= precision;
            signed_r <= signed_x;
            wide_r <= wide;
            x_r <= x;
            w_r <= w;
        end
        if (run) acc <= next;
        else if (start) acc <= {LONG{1'b0}};
    end
endmodule
